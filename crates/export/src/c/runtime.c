
/* ---- Arithmetic: each function is a fixed sequence of IEEE operations, the same on every target. ---- */

#if defined(__FAST_MATH__)
#error "compile without -ffast-math: it changes results"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static int32_t signed_of(uint32_t bits)
{
    int32_t value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#if defined(__FP_FAST_FMAF) && !defined(GANGLION_SOFT_FMA)
static float fused(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
#else
/* a * b + c, rounded once. The product is exact in double precision; a sum that ends up half way between two floats, or
   below the normal ones, is first rounded to odd, so that the second rounding cannot go wrong. */
static float fused(float a, float b, float c)
{
    const double product = (double)a * (double)b;
    double sum = product + (double)c;
    uint64_t bits;
    uint32_t exponent;
    memcpy(&bits, &sum, sizeof bits);
    exponent = (uint32_t)(bits >> 52) & 0x7ffu;
    if (exponent != 0x7ffu && ((bits & 0x1fffffffu) == 0x10000000u || exponent < 1023u - 126u)) {
        const double part = sum - product;
        const double error = (product - (sum - part)) + ((double)c - part);
        if (error != 0.0 && (bits & 1u) == 0u) {
            if ((error > 0.0) == (sum > 0.0)) {
                bits++;
            } else {
                bits--;
            }
            memcpy(&sum, &bits, sizeof sum);
        }
    }
    return (float)sum;
}
#endif

/* Nearest integer, ties to even, for magnitudes below 2^22; the integer as float goes to *rounded. */
static int32_t round_even(float x, float *rounded)
{
    const float magic = 12582912.0f;
    const float shifted = x + magic;
    *rounded = shifted - magic;
    return signed_of(bits_of(shifted) - bits_of(magic));
}

static float power_of_two(int32_t exponent)
{
    return of_bits(((uint32_t)exponent + 127u) << 23);
}

/* e^x */
static float exponential(float x)
{
    float clamped = x, n_float, r, p, y;
    int32_t n, half;
    if (clamped < -88.0f) {
        clamped = -88.0f;
    }
    if (clamped > 89.0f) {
        clamped = 89.0f;
    }
    n = round_even(clamped * 1.44269504089f, &n_float);
    r = fused(n_float, 2.1219444e-4f, fused(n_float, -0.6933594f, x));
    p = fused(1.0f / 5040.0f, r, 1.0f / 720.0f);
    p = fused(p, r, 1.0f / 120.0f);
    p = fused(p, r, 1.0f / 24.0f);
    p = fused(p, r, 1.0f / 6.0f);
    p = fused(p, r, 0.5f);
    p = fused(p, r, 1.0f);
    p = fused(p, r, 1.0f);
    half = n / 2 - (n % 2 < 0 ? 1 : 0);
    y = p * power_of_two(half);
    y = y * power_of_two((int32_t)((uint32_t)n - (uint32_t)half));
    if (x < -87.3f) {
        y = 0.0f;
    }
    return x > 88.72f ? of_bits(0x7f800000u) : y;
}

/* The root of a positive number, rounded once. */
static float square_root(float x)
{
    const uint32_t bits = bits_of(x);
    int32_t exponent = (int32_t)(bits >> 23) - 150;
    uint64_t mantissa = (bits & 0x7fffffu) | 0x800000u, rest, root = 0, bit = (uint64_t)1 << 54;
    if (!(x > 0.0f) || bits >= 0x7f800000u || bits < 0x800000u) {
        return x > 0.0f && bits < 0x800000u ? 0.0f : x;
    }
    if (exponent % 2 != 0) {
        mantissa <<= 1;
        exponent -= 1;
    }
    /* Digit by digit; what is left over makes the last bit odd, so that rounding to a float goes the right way. */
    rest = mantissa << 30;
    while (bit != 0) {
        if (rest >= root + bit) {
            rest -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
        bit >>= 2;
    }
    if (rest != 0) {
        root |= 1;
    }
    return (float)(uint32_t)root * power_of_two((exponent - 30) / 2);
}

#if G_SOFTCAP
static float hyperbolic_tangent(float x)
{
    const float magnitude = x < 0.0f ? -x : x;
    const float z = x * x;
    float p, large;
    if (magnitude < 0.625f) {
        p = fused(-5.7049887e-3f, z, 2.063909e-2f);
        p = fused(p, z, -5.3739716e-2f);
        p = fused(p, z, 1.3331442e-1f);
        p = fused(p, z, -3.333328e-1f);
        return fused(p * z, x, x);
    }
    large = 1.0f - 2.0f / (exponential(2.0f * magnitude) + 1.0f);
    return x < 0.0f ? -large : large;
}

static float soft_capped(float x, float cap)
{
    return hyperbolic_tangent(x / cap) * cap;
}
#endif

#if G_HAS_Q8 || G_HAS_Q4
/* IEEE half to single, exact. */
static float half_to_float(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13;
    const uint32_t exponent = magnitude & 0x0f800000u;
    uint32_t bits = magnitude + ((127u - 15u) << 23);
    if (exponent == 0x0f800000u) {
        bits += (128u - 16u) << 23;
    } else if (exponent == 0u) {
        bits = bits_of(of_bits(magnitude + (113u << 23)) - of_bits(113u << 23));
    }
    return of_bits(bits | ((uint32_t)(half & 0x8000u) << 16));
}
#endif

/* The fixed tree that joins 16 lanes. */
static float joined(const float lanes[16])
{
    float eight[8], four[4];
    int i;
    for (i = 0; i < 8; i++) {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    for (i = 0; i < 4; i++) {
        four[i] = eight[i] + eight[i + 4];
    }
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* ---- State ---- */

static struct {
    float hidden[G_EMBEDDING];
    float normed[G_EMBEDDING];
    float projected[G_EMBEDDING];
    float query[G_QUERY];
    float attended[G_QUERY];
    float key[G_KV];
    float value[G_KV];
    float gate[G_FEED_FORWARD];
    float up[G_FEED_FORWARD];
    float scales[G_WIDEST / 32 + 1];
#if G_FACTORS
    float between[G_RANK];
#endif
#if G_KV_INT8
    float key_scales[G_LAYERS][GANGLION_CONTEXT][G_KV_HEADS];
    float value_scales[G_LAYERS][GANGLION_CONTEXT][G_KV_HEADS];
    int8_t keys[G_LAYERS][GANGLION_CONTEXT][G_KV];
    int8_t values[G_LAYERS][GANGLION_CONTEXT][G_KV];
#else
    float keys[G_LAYERS][GANGLION_CONTEXT][G_KV];
    float values[G_LAYERS][GANGLION_CONTEXT][G_KV];
#endif
    int8_t quants[G_WIDEST];
} arena;

static struct {
    uint32_t position;
    /* Whether there are logits: a token was evaluated since the last reset or truncation. */
    int ready;
} state;

typedef char arena_is_as_large_as_stated[sizeof arena == GANGLION_ARENA_BYTES ? 1 : -1];

/* ---- Parts of a layer ---- */

/* out = x / sqrt(mean(x^2) + epsilon) * weight; both may be the same array */
static void rms_norm(const float *x, const float *weight, uint32_t length, float *out)
{
    float lanes[16] = { 0.0f };
    float scale;
    uint32_t i;
    for (i = 0; i < length; i++) {
        lanes[i % 16u] = fused(x[i], x[i], lanes[i % 16u]);
    }
    scale = 1.0f / square_root(joined(lanes) / (float)length + G_EPSILON);
    for (i = 0; i < length; i++) {
        const float scaled = x[i] * scale;
        out[i] = scaled * weight[i];
    }
}

#if G_HAS_Q8 || G_HAS_Q4 || G_KV_INT8
/* int8 values of x with the scale amax / 127, which is returned. */
static float quantize(const float *x, uint32_t count, int8_t *quants)
{
    uint32_t i, largest = 0;
    float scale, inverse;
    for (i = 0; i < count; i++) {
        const uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        if (magnitude > largest) {
            largest = magnitude;
        }
    }
    scale = of_bits(largest) / 127.0f;
    inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    for (i = 0; i < count; i++) {
        float v = x[i] * inverse, rounded;
        int32_t q;
        if (v < -127.0f) {
            v = -127.0f;
        }
        if (v > 127.0f) {
            v = 127.0f;
        }
        /* Of a value that is not a number nothing is left here; the scale of its block is one. */
        q = v == v ? round_even(v, &rounded) : 0;
        quants[i] = (int8_t)q;
    }
    return scale;
}
#endif

/* What the next products read, as int8 too. */
static void prepare(const float *x, uint32_t k)
{
#if G_HAS_Q8 || G_HAS_Q4
    uint32_t block;
    if (k % 32u == 0u) {
        for (block = 0; block < k / 32u; block++) {
            arena.scales[block] = quantize(x + block * 32u, 32u, arena.quants + block * 32u);
        }
    }
#else
    (void)x;
    (void)k;
#endif
}

#if G_HAS_Q8
/* The dot of 32 int8 values each, exact, by whatever instructions there are. */
static int32_t dot_of_block(const int8_t *w, const int8_t *a)
{
#if defined(__ARM_FEATURE_MVE)
    return vmladavaq_s8(vmladavq_s8(vld1q_s8(w), vld1q_s8(a)), vld1q_s8(w + 16), vld1q_s8(a + 16));
#elif defined(__ARM_FEATURE_SIMD32)
    int32_t dot = 0;
    int i;
    for (i = 0; i < 32; i += 4) {
        uint32_t four_w, four_a, odd_w, odd_a;
        memcpy(&four_w, w + i, sizeof four_w);
        memcpy(&four_a, a + i, sizeof four_a);
        odd_w = (four_w >> 8) | (four_w << 24);
        odd_a = (four_a >> 8) | (four_a << 24);
        dot = __smlad(__sxtb16(signed_of(four_w)), __sxtb16(signed_of(four_a)), dot);
        dot = __smlad(__sxtb16(signed_of(odd_w)), __sxtb16(signed_of(odd_a)), dot);
    }
    return dot;
#else
    int32_t dot = 0;
    int i;
    for (i = 0; i < 32; i++) {
        dot += (int32_t)w[i] * (int32_t)a[i];
    }
    return dot;
#endif
}
#endif

/* One output of a product, without its bias. */
static float product_row(const matrix *m, uint32_t row, const float *x)
{
    const uint32_t k = m->k;
#if G_HAS_Q4 || G_HAS_F32
    uint32_t i;
#endif
#if G_HAS_Q8 || G_HAS_Q4
    uint32_t block;
    float sum = 0.0f;
#endif
#if G_HAS_F32
    float parts[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    const float *w;
#endif
#if G_HAS_Q8
    if (m->q8 != NULL) {
        const int8_t *quants = m->q8 + (size_t)row * k;
        const uint16_t *scales = m->scales + (size_t)row * (k / 32u);
        for (block = 0; block < k / 32u; block++) {
            const int32_t dot = dot_of_block(quants + block * 32u, arena.quants + block * 32u);
            sum = fused((float)dot, half_to_float(scales[block]) * arena.scales[block], sum);
        }
        return sum;
    }
#endif
#if G_HAS_Q4
    if (m->q4 != NULL) {
        const uint8_t *pairs = m->q4 + (size_t)row * (k / 2u);
        const uint16_t *scales = m->scales + (size_t)row * (k / 32u);
        const int8_t *a = arena.quants;
        for (block = 0; block < k / 32u; block++) {
            int32_t dot = 0;
            for (i = 0; i < 16u; i++) {
                dot += ((int32_t)(pairs[i] & 15u) - 8) * (int32_t)a[i];
                dot += ((int32_t)(pairs[i] >> 4) - 8) * (int32_t)a[i + 16u];
            }
            sum = fused((float)dot, half_to_float(scales[block]) * arena.scales[block], sum);
            pairs += 16;
            a += 32;
        }
        return sum;
    }
#endif
#if G_HAS_F32
    w = m->f32 + (size_t)row * k;
    for (i = 0; i + 4u <= k; i += 4u) {
        parts[0] = fused(w[i], x[i], parts[0]);
        parts[1] = fused(w[i + 1u], x[i + 1u], parts[1]);
        parts[2] = fused(w[i + 2u], x[i + 2u], parts[2]);
        parts[3] = fused(w[i + 3u], x[i + 3u], parts[3]);
    }
    for (; i < k; i++) {
        parts[i % 4u] = fused(w[i], x[i], parts[i % 4u]);
    }
    return (parts[0] + parts[1]) + (parts[2] + parts[3]);
#else
    (void)x;
    return 0.0f;
#endif
}

static void product(const matrix *m, const float *x, float *out)
{
    uint32_t row;
#if G_FACTORS
    if (m->first != NULL) {
        /* What an earlier product of the same input left as int8 may have been what stood between its factors. */
        prepare(x, m->first->k);
        for (row = 0; row < m->first->rows; row++) {
            arena.between[row] = product_row(m->first, row, x);
        }
        x = arena.between;
    }
    prepare(x, m->k);
#endif
    for (row = 0; row < m->rows; row++) {
        out[row] = product_row(m, row, x);
    }
    if (m->bias != NULL) {
        for (row = 0; row < m->rows; row++) {
            out[row] += m->bias[row];
        }
    }
}

static void embed(uint32_t token)
{
    const matrix *m = &g_embedding;
    uint32_t i;
    for (i = 0; i < G_EMBEDDING; i++) {
        float v = 0.0f;
#if G_HAS_Q8
        if (m->q8 != NULL) {
            v = half_to_float(m->scales[((size_t)token * G_EMBEDDING + i) / 32u])
                * (float)m->q8[(size_t)token * G_EMBEDDING + i];
        }
#endif
#if G_HAS_Q4
        if (m->q4 != NULL) {
            const size_t block = ((size_t)token * G_EMBEDDING + i) / 32u;
            const uint8_t pair = m->q4[block * 16u + i % 16u];
            const int32_t q = (int32_t)(i % 32u < 16u ? pair & 15u : pair >> 4) - 8;
            v = half_to_float(m->scales[block]) * (float)q;
        }
#endif
#if G_HAS_F32
        if (m->f32 != NULL) {
            v = m->f32[(size_t)token * G_EMBEDDING + i];
        }
#endif
#if G_SCALE_EMBEDDING
        v *= G_EMBEDDING_SCALE;
#endif
        arena.hidden[i] = v;
    }
}

static void rotate(float *heads, uint32_t count, const float *angles)
{
    uint32_t head, i;
    for (head = 0; head < count; head++) {
        for (i = 0; i < G_PAIRS; i++) {
            const float cosine = angles[2u * i], sine = angles[2u * i + 1u];
#if G_NEIGHBOURS
            const uint32_t first = 2u * i, second = 2u * i + 1u;
#else
            const uint32_t first = i, second = i + G_PAIRS;
#endif
            const float a = heads[first], b = heads[second];
            const float b_sine = b * sine, b_cosine = b * cosine;
            heads[first] = fused(a, cosine, -b_sine);
            heads[second] = fused(a, sine, b_cosine);
        }
        heads += G_HEAD_DIM;
    }
}

#if G_QUERY_KEY_NORM
static void norm_parts(float *x, const float *weight, uint32_t part, uint32_t count)
{
    uint32_t i;
    for (i = 0; i < count; i++) {
        rms_norm(x + i * part, weight, part, x + i * part);
    }
}
#endif

static void keep_key_and_value(uint32_t index)
{
    uint32_t head;
    for (head = 0; head < G_KV_HEADS; head++) {
        const uint32_t first = head * G_HEAD_DIM;
#if G_KV_INT8
        arena.key_scales[index][state.position][head] =
            quantize(arena.key + first, G_HEAD_DIM, &arena.keys[index][state.position][first]);
        arena.value_scales[index][state.position][head] =
            quantize(arena.value + first, G_HEAD_DIM, &arena.values[index][state.position][first]);
#else
        memcpy(&arena.keys[index][state.position][first], arena.key + first, G_HEAD_DIM * sizeof(float));
        memcpy(&arena.values[index][state.position][first], arena.value + first, G_HEAD_DIM * sizeof(float));
#endif
    }
}

static float score_of(const float *query, uint32_t index, uint32_t head, uint32_t at)
{
    float score = 0.0f;
    uint32_t i;
    for (i = 0; i < G_HEAD_DIM; i++) {
        score = fused(query[i], (float)arena.keys[index][at][head * G_HEAD_DIM + i], score);
    }
#if G_KV_INT8
    score *= arena.key_scales[index][at][head];
#endif
    score *= G_ATTENTION_SCALE;
#if G_ATTENTION_SOFTCAP
    score = soft_capped(score, G_ATTENTION_CAP);
#endif
    return score;
}

/* The softmax is joined over blocks of 64 positions. */
static void attend(uint32_t index, uint32_t query_head, uint32_t first)
{
    const uint32_t head = query_head / (G_HEADS / G_KV_HEADS), last = state.position;
    const float *query = arena.query + query_head * G_HEAD_DIM;
    float *out = arena.attended + query_head * G_HEAD_DIM;
    float lanes[16] = { 0.0f }, weights[64];
    float top = of_bits(0xff800000u), total;
    uint32_t block, at, i;
    memset(out, 0, G_HEAD_DIM * sizeof(float));
    for (block = first / 64u; block <= last / 64u; block++) {
        const uint32_t from = block * 64u > first ? block * 64u : first;
        const uint32_t to = block * 64u + 63u < last ? block * 64u + 63u : last;
        float larger = top, factor;
        for (at = from; at <= to; at++) {
            weights[at % 64u] = score_of(query, index, head, at);
            if (weights[at % 64u] > larger) {
                larger = weights[at % 64u];
            }
        }
        factor = top == larger ? 1.0f : exponential(top - larger);
        top = larger;
        if (factor != 1.0f) {
            for (i = 0; i < 16u; i++) {
                lanes[i] *= factor;
            }
            for (i = 0; i < G_HEAD_DIM; i++) {
                out[i] *= factor;
            }
        }
        for (at = from; at <= to; at++) {
            float weight = exponential(weights[at % 64u] - top);
            lanes[at % 16u] += weight;
#if G_KV_INT8
            weight *= arena.value_scales[index][at][head];
#endif
            for (i = 0; i < G_HEAD_DIM; i++) {
                out[i] = fused(weight, (float)arena.values[index][at][head * G_HEAD_DIM + i], out[i]);
            }
        }
    }
    total = joined(lanes);
    for (i = 0; i < G_HEAD_DIM; i++) {
        out[i] = out[i] / total;
    }
}

/* projected = attention(normed) */
static void attention(uint32_t index)
{
    const layer *l = &g_layers[index];
    const float *angles = g_rope[l->rope] + (size_t)state.position * 2u * G_PAIRS;
    uint32_t head, first = 0;
    prepare(arena.normed, G_EMBEDDING);
    product(&l->query, arena.normed, arena.query);
    product(&l->key, arena.normed, arena.key);
    product(&l->value, arena.normed, arena.value);
#if G_QUERY_KEY_NORM
    norm_parts(arena.query, l->query_norm, G_QUERY_NORM_LENGTH, G_QUERY / G_QUERY_NORM_LENGTH);
    norm_parts(arena.key, l->key_norm, G_KEY_NORM_LENGTH, G_KV / G_KEY_NORM_LENGTH);
#endif
    rotate(arena.query, G_HEADS, angles);
    rotate(arena.key, G_KV_HEADS, angles);
    keep_key_and_value(index);
    if (l->window != 0u && state.position + 1u > l->window) {
        first = state.position + 1u - l->window;
    }
    for (head = 0; head < G_HEADS; head++) {
        attend(index, head, first);
    }
    prepare(arena.attended, G_QUERY);
    product(&l->output, arena.attended, arena.projected);
}

static float activated(float x)
{
#if G_ACTIVATION == 0
    return x / (1.0f + exponential(-x));
#elif G_ACTIVATION == 1
    const float linear = -1.595769f, cubic = linear * 0.044715f;
    return x / (1.0f + exponential(x * fused(cubic, x * x, linear)));
#else
    float t = (x < 0.0f ? -x : x) * 0.70710678119f, p, tail;
    if (t > 6.0f) {
        t = 6.0f;
    }
    p = fused(-5.477621e-7f, t, 1.2485465e-5f);
    p = fused(p, t, -1.18291624e-4f);
    p = fused(p, t, 5.9693e-4f);
    p = fused(p, t, -1.5574244e-3f);
    p = fused(p, t, 1.2968786e-5f);
    p = fused(p, t, 1.9255597e-2f);
    p = fused(p, t, -1.0281425e-1f);
    p = fused(p, t, -6.3661355e-1f);
    p = fused(p, t, -1.1283795f);
    tail = 0.5f * exponential(p * t);
    return x * (x < 0.0f ? tail : 1.0f - tail);
#endif
}

/* projected = down(f(gate(normed)) * up(normed)) */
static void feed_forward(const layer *l)
{
    uint32_t i;
    prepare(arena.normed, G_EMBEDDING);
    product(&l->gate, arena.normed, arena.gate);
    product(&l->up, arena.normed, arena.up);
    for (i = 0; i < G_FEED_FORWARD; i++) {
        const float inner = activated(arena.gate[i]);
        arena.gate[i] = inner * arena.up[i];
    }
    prepare(arena.gate, G_FEED_FORWARD);
    product(&l->down, arena.gate, arena.projected);
}

static void read_stream(const float *weight)
{
    if (weight != NULL) {
        rms_norm(arena.hidden, weight, G_EMBEDDING, arena.normed);
    } else {
        memcpy(arena.normed, arena.hidden, sizeof arena.hidden);
    }
}

static void add_to_stream(const float *weight)
{
    uint32_t i;
    if (weight != NULL) {
        rms_norm(arena.projected, weight, G_EMBEDDING, arena.projected);
    }
    for (i = 0; i < G_EMBEDDING; i++) {
        arena.hidden[i] += arena.projected[i];
    }
}

/* ---- What the header declares ---- */

void ganglion_reset(void)
{
    state.position = 0;
    state.ready = 0;
}

uint32_t ganglion_position(void)
{
    return state.position;
}

int ganglion_truncate(uint32_t length)
{
    if (length > state.position) {
        return GANGLION_FULL;
    }
    state.position = length;
    state.ready = 0;
    return GANGLION_OK;
}

int ganglion_step(uint32_t token)
{
    uint32_t index;
    if (token >= GANGLION_VOCABULARY) {
        return GANGLION_TOKEN;
    }
    if (state.position >= GANGLION_CONTEXT) {
        return GANGLION_FULL;
    }
    embed(token);
    for (index = 0; index < G_LAYERS; index++) {
        const layer *l = &g_layers[index];
        read_stream(l->attention_norm);
        attention(index);
        add_to_stream(l->attention_post_norm);
        read_stream(l->feed_forward_norm);
        feed_forward(l);
        add_to_stream(l->feed_forward_post_norm);
    }
    read_stream(g_output_norm);
    prepare(arena.normed, G_EMBEDDING);
    state.position++;
    state.ready = 1;
    return GANGLION_OK;
}

float ganglion_logit(uint32_t token)
{
    float logit;
    if (!state.ready || token >= GANGLION_VOCABULARY) {
        return of_bits(0x7fc00000u);
    }
    logit = product_row(&g_head, token, arena.normed);
    if (g_head.bias != NULL) {
        logit += g_head.bias[token];
    }
#if G_FINAL_SOFTCAP
    logit = soft_capped(logit, G_FINAL_CAP);
#endif
    return logit;
}

static int32_t best(const uint32_t *tokens, uint32_t count)
{
    int32_t found = -1;
    float top = 0.0f;
    uint32_t i;
    for (i = 0; i < count; i++) {
        const uint32_t token = tokens != NULL ? tokens[i] : i;
        const float logit = ganglion_logit(token);
        if (logit != logit) {
            return -1;
        }
        if (found < 0 || logit > top) {
            found = (int32_t)token;
            top = logit;
        }
    }
    return found;
}

int32_t ganglion_best(void)
{
    return best(NULL, GANGLION_VOCABULARY);
}

int32_t ganglion_best_of(const uint32_t *tokens, uint32_t count)
{
    return tokens != NULL ? best(tokens, count) : -1;
}
