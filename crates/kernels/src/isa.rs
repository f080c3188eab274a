//! Instruction sets as values: a token exists only on a processor that has the feature, so holding one is the proof
//! that its kernels may be called.

/// Proof of AVX2, FMA, F16C and POPCNT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

/// Proof of AVX-VNNI (and of everything [`Avx2`] proves).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AvxVnni(());

/// Proof of AVX-512 F, BW, DQ, VL and VNNI (and of everything [`Avx2`] proves), and perhaps of what expands bytes by a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512 {
    expands: bool,
}

/// Proof of NEON (with fused multiply-add and half conversions, which every aarch64 processor has).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neon(());

/// Proof of the int8 dot product `sdot` (and of everything [`Neon`] proves).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeonDot(());

/// Proof of the int8 matrix product `usmmla` (and of everything [`NeonDot`] proves).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeonI8mm(());

impl Avx2 {
    /// The token, if this processor has the features.
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt")
        {
            return Some(Self(()));
        }
        None
    }
}

impl AvxVnni {
    /// The token, if this processor has the features.
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if Avx2::new().is_some() && is_x86_feature_detected!("avxvnni") {
            return Some(Self(()));
        }
        None
    }
}

impl Avx512 {
    /// The token, if this processor has the features.
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if Avx2::new().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            let expands = is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512vbmi2");
            return Some(Self { expands });
        }
        None
    }

    /// Whether it is also a proof of AVX-512 VBMI and VBMI2, which sparse formats make use of.
    pub fn expands(self) -> bool {
        self.expands
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn narrow(self) -> Avx2 {
        Avx2(())
    }
}

impl Neon {
    /// The token, if this is an aarch64 processor.
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Some(Self(()));
        }
        None
    }
}

impl NeonDot {
    /// The token, if this processor has the features.
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "aarch64")]
        if Neon::new().is_some() && std::arch::is_aarch64_feature_detected!("dotprod") {
            return Some(Self(()));
        }
        None
    }
}

impl NeonI8mm {
    /// The token, if this processor has the features.
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "aarch64")]
        if NeonDot::new().is_some() && std::arch::is_aarch64_feature_detected!("i8mm") {
            return Some(Self(()));
        }
        None
    }
}

/// The instruction set that kernels run on. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Portable code; the reference of the others.
    Scalar,
    /// 256-bit kernels.
    Avx2(Avx2),
    /// 256-bit kernels with int8 dot products.
    AvxVnni(AvxVnni),
    /// 512-bit kernels with int8 dot products.
    Avx512(Avx512),
    /// 128-bit kernels of Arm.
    Neon(Neon),
    /// 128-bit kernels with int8 dot products.
    NeonDot(NeonDot),
    /// 128-bit kernels with int8 dot products, and matrix products for two tokens and more.
    NeonI8mm(NeonI8mm),
}

impl Isa {
    /// The fastest set of this processor.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }

    /// Every set of this processor, slowest first: what tests force one by one.
    pub fn available() -> Vec<Self> {
        [
            Some(Self::Scalar),
            Avx2::new().map(Self::Avx2),
            AvxVnni::new().map(Self::AvxVnni),
            Avx512::new().map(Self::Avx512),
            Neon::new().map(Self::Neon),
            NeonDot::new().map(Self::NeonDot),
            NeonI8mm::new().map(Self::NeonI8mm),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The set of this name (`scalar`, `avx2`, `avxvnni`, `avx512`, `neon`, `neondot`, `neoni8mm`), if it is one and this processor has it.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// Short name for status lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2(_) => "avx2",
            Self::AvxVnni(_) => "avxvnni",
            Self::Avx512(_) => "avx512",
            Self::Neon(_) => "neon",
            Self::NeonDot(_) => "neondot",
            Self::NeonI8mm(_) => "neoni8mm",
        }
    }
}

/// Compiles one body for every instruction set and dispatches on an [`Isa`].
///
/// The bodies are plain Rust with `mul_add`; the compiler never reorders float arithmetic, so the versions differ in
/// speed only. `tests/isa.rs` compares them bit for bit all the same.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($isa:ident $(, $arg:ident: $ty:ty)* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($isa: $crate::Isa $(, $arg: $ty)*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) { body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
            fn avx512($($arg: $ty),*) { body($($arg),*) }
            match $isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: these tokens exist only where the processor has these features.
                $crate::Isa::Avx2(_) | $crate::Isa::AvxVnni(_) => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an Avx512 token exists only where the processor has these features.
                $crate::Isa::Avx512(_) => unsafe { avx512($($arg),*) },
                // What these bodies can use of NEON, every aarch64 processor has.
                _ => body($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;
