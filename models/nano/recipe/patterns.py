"""Sentence patterns: `[a|b|]` picks one, `{slot}` is filled by the caller. Nested brackets are allowed."""


def expand(rng, pattern):
    """One reading of a pattern; slots stay as they are."""
    out, index = [], 0
    while index < len(pattern):
        char = pattern[index]
        if char != "[":
            out.append(char)
            index += 1
            continue
        depth, end, parts, start = 1, index + 1, [], index + 1
        while depth:
            c = pattern[end]
            if c == "[":
                depth += 1
            elif c == "]":
                depth -= 1
            if (c == "|" and depth == 1) or depth == 0:
                parts.append(pattern[start:end])
                start = end + 1
            end += 1
        out.append(expand(rng, rng.choice(parts)))
        index = end
    return "".join(out)


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()


def words_of(number):
    """English words for 0 to 999."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + ("" if number % 10 == 0 else " " + ONES[number % 10])
    rest = "" if number % 100 == 0 else " and " + words_of(number % 100)
    return ONES[number // 100] + " hundred" + rest


def number_text(value):
    """Shortest decimal form, as in a command's JSON."""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
