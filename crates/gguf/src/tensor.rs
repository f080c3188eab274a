//! Tensor types (block formats) and the tensor directory's entries.

use std::fmt;

macro_rules! tensor_types {
    ($($variant:ident = $id:literal, $name:literal, $block_size:literal, $block_bytes:literal;)*) => {
        /// Element type of a tensor: a plain number, a block format of ggml, or one of this project's own.
        ///
        /// Ids, block sizes and byte sizes are those of ggml's `ggml_type` table. Own types have ids from 0x474e4700 on (`GNG` and a
        /// zero), far from ggml's: programs that do not know them refuse the file. What they hold is said in ADR 0026 and 0031.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(non_camel_case_types, missing_docs)] // the field's own names
        pub enum TensorType { $($variant),* }

        impl TensorType {
            /// Every type, by ascending id.
            pub const ALL: &'static [TensorType] = &[$(TensorType::$variant),*];

            /// The type with ggml's id, if known. Ids of removed formats are unknown.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(TensorType::$variant),)* _ => None }
            }

            /// ggml's id, as stored in the file.
            pub const fn id(self) -> u32 {
                match self { $(TensorType::$variant => $id),* }
            }

            /// ggml's name, or the own one: `F32`, `Q4_0`, `T3`, …
            pub const fn name(self) -> &'static str {
                match self { $(TensorType::$variant => $name),* }
            }

            /// Elements of a row in one block; 1 for plain numbers.
            pub const fn block_size(self) -> usize {
                match self { $(TensorType::$variant => $block_size),* }
            }

            /// Bytes per block.
            pub const fn block_bytes(self) -> usize {
                match self { $(TensorType::$variant => $block_bytes),* }
            }
        }
    };
}

tensor_types! {
    F32 = 0, "F32", 1, 4;
    F16 = 1, "F16", 1, 2;
    Q4_0 = 2, "Q4_0", 32, 18;
    Q4_1 = 3, "Q4_1", 32, 20;
    Q5_0 = 6, "Q5_0", 32, 22;
    Q5_1 = 7, "Q5_1", 32, 24;
    Q8_0 = 8, "Q8_0", 32, 34;
    Q8_1 = 9, "Q8_1", 32, 36;
    Q2_K = 10, "Q2_K", 256, 84;
    Q3_K = 11, "Q3_K", 256, 110;
    Q4_K = 12, "Q4_K", 256, 144;
    Q5_K = 13, "Q5_K", 256, 176;
    Q6_K = 14, "Q6_K", 256, 210;
    Q8_K = 15, "Q8_K", 256, 292;
    IQ2_XXS = 16, "IQ2_XXS", 256, 66;
    IQ2_XS = 17, "IQ2_XS", 256, 74;
    IQ3_XXS = 18, "IQ3_XXS", 256, 98;
    IQ1_S = 19, "IQ1_S", 256, 50;
    IQ4_NL = 20, "IQ4_NL", 32, 18;
    IQ3_S = 21, "IQ3_S", 256, 110;
    IQ2_S = 22, "IQ2_S", 256, 82;
    IQ4_XS = 23, "IQ4_XS", 256, 136;
    I8 = 24, "I8", 1, 1;
    I16 = 25, "I16", 1, 2;
    I32 = 26, "I32", 1, 4;
    I64 = 27, "I64", 1, 8;
    F64 = 28, "F64", 1, 8;
    IQ1_M = 29, "IQ1_M", 256, 56;
    BF16 = 30, "BF16", 1, 2;
    TQ1_0 = 34, "TQ1_0", 256, 54;
    TQ2_0 = 35, "TQ2_0", 256, 66;
    MXFP4 = 39, "MXFP4", 32, 17;
    T2 = 0x474e_4702, "T2", 32, 130;
    T3 = 0x474e_4703, "T3", 32, 194;
    T4 = 0x474e_4704, "T4", 32, 258;
    NF4 = 0x474e_4710, "NF4", 256, 134;
    F8_E4M3 = 0x474e_4720, "F8_E4M3", 1, 1;
    I8_ROW = 0x474e_4730, "I8_ROW", 32, 32;
    SPARSE4 = 0x474e_4744, "SPARSE4", 32, 14;
    SPARSE8 = 0x474e_4748, "SPARSE8", 32, 22;
}

impl TensorType {
    /// Rows per block.
    pub const fn block_rows(self) -> usize {
        match self {
            Self::T2 | Self::T3 | Self::T4 => 16,
            _ => 1,
        }
    }

    /// Bytes in front of each row.
    pub const fn row_bytes(self) -> usize {
        match self {
            Self::F8_E4M3 | Self::I8_ROW => 4,
            _ => 0,
        }
    }

    /// Whether it is one of this project's own, which no other program reads.
    pub const fn is_own(self) -> bool {
        self.id() >= 0x474e_4700
    }

    /// Bytes of a tensor of `shape` (innermost dimension first); `None` when the innermost dimension, or that of rows, is not a
    /// whole number of blocks, a dimension is zero, or the size overflows.
    pub fn size_bytes(self, shape: &[u64]) -> Option<u64> {
        let block_size = self.block_size() as u64;
        let innermost = shape.first().copied().unwrap_or(1);
        if innermost % block_size != 0 || shape.contains(&0) {
            return None;
        }
        let rows_in_block = self.block_rows() as u64;
        let rows = shape.iter().skip(1).try_fold(1u64, |product, &n| product.checked_mul(n))?;
        if shape.get(1).copied().unwrap_or(1) % rows_in_block != 0 {
            return None;
        }
        // The number of elements has to fit too.
        rows.checked_mul(innermost)?;
        let row_bytes = (innermost / block_size).checked_mul(self.block_bytes() as u64)?;
        row_bytes.checked_add(self.row_bytes() as u64)?.checked_mul(rows / rows_in_block)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One entry of the tensor directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Dimensions in GGUF's order, innermost (contiguous) first: a row-major `(rows, columns)` matrix is
    /// `[columns, rows]`.
    pub shape: Vec<u64>,
    /// Element type.
    pub dtype: TensorType,
    /// Start of the data in bytes from the start of the *file* (the file itself stores it from the start of its
    /// data section).
    pub offset: u64,
    /// Length of the data in bytes.
    pub size_bytes: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn element_count(&self) -> u64 {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_ascend() {
        for pair in TensorType::ALL.windows(2) {
            assert!(pair[0].id() < pair[1].id());
        }
        for &dtype in TensorType::ALL {
            assert_eq!(TensorType::from_id(dtype.id()), Some(dtype));
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38] {
            assert_eq!(TensorType::from_id(removed), None);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(TensorType::F32.size_bytes(&[3, 2]), Some(24));
        assert_eq!(TensorType::F32.size_bytes(&[]), Some(4));
        assert_eq!(TensorType::Q8_0.size_bytes(&[64, 2]), Some(2 * 2 * 34));
        assert_eq!(TensorType::Q8_0.size_bytes(&[33]), None);
        assert_eq!(TensorType::Q4_K.size_bytes(&[256, 0]), None);
        assert_eq!(TensorType::F32.size_bytes(&[u64::MAX, 2]), None);
        assert_eq!(TensorType::F32.size_bytes(&[u64::MAX]), None);
        assert_eq!(TensorType::T2.size_bytes(&[64, 48]), Some(2 * 3 * 130));
        assert_eq!(TensorType::T2.size_bytes(&[64, 40]), None);
        assert_eq!(TensorType::T2.size_bytes(&[64]), None);
        assert_eq!(TensorType::T4.size_bytes(&[32, 16, 3]), Some(3 * 258));
        assert_eq!(TensorType::I8_ROW.size_bytes(&[64, 3]), Some(3 * 68));
        assert_eq!(TensorType::F8_E4M3.size_bytes(&[7, 2, 2]), Some(4 * 11));
        assert_eq!(TensorType::I8_ROW.size_bytes(&[48, 3]), None);
        assert_eq!(TensorType::SPARSE8.size_bytes(&[64, 3]), Some(3 * 44));
        assert_eq!(TensorType::SPARSE4.size_bytes(&[48, 3]), None);
    }
}
