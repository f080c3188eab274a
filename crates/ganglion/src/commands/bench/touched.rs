//! How much of a model file one token needs.

use ganglion_gguf::Header;

/// What a token needs of a model file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    pub parameters: u64,
    /// Stored bytes of the weights that one decoded token reads: the layers and the head, of a mixture only the experts
    /// that it uses. The embedding's one row is not counted.
    pub bytes: u64,
    /// Multiply-adds of the layers' matrices for one token.
    pub layer_macs: u64,
    pub head_macs: u64,
}

impl Touched {
    pub fn new(header: &Header) -> Self {
        let architecture = header.get_str("general.architecture").unwrap_or_default();
        let count = |key: &str| header.get_u32(&format!("{architecture}.{key}")).ok().filter(|n| *n > 0);
        let experts = count("expert_used_count").zip(count("expert_count"));
        let tied = header.tensor("output.weight").is_err();
        let mut touched = Self { parameters: 0, bytes: 0, layer_macs: 0, head_macs: 0 };
        for tensor in header.tensors() {
            touched.parameters += tensor.element_count();
            let (head, row_only) = match tensor.name.as_str() {
                "output.weight" => (true, false),
                "token_embd.weight" => (tied, !tied),
                name => (false, name.ends_with("_embd.weight")),
            };
            if row_only {
                continue;
            }
            let part = |whole: u64| match experts {
                Some((used, of)) if tensor.name.contains("_exps.") => whole * u64::from(used) / u64::from(of),
                _ => whole,
            };
            touched.bytes += part(tensor.size_bytes);
            match (head, tensor.shape.len()) {
                (true, _) => touched.head_macs += tensor.element_count(),
                (false, 0 | 1) => {}
                (false, _) => touched.layer_macs += part(tensor.element_count()),
            }
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ganglion_gguf::{Gguf, GgufWriter, TensorType};

    /// A file of these F32 tensors, with two of four experts in use.
    fn touched(tensors: &[(&str, &[u64])]) -> Touched {
        let mut writer = GgufWriter::new();
        writer.metadata("general.architecture", "olmoe").unwrap();
        writer.metadata("olmoe.expert_count", 4u32).unwrap();
        writer.metadata("olmoe.expert_used_count", 2u32).unwrap();
        for (name, shape) in tensors {
            let bytes = vec![0u8; shape.iter().product::<u64>() as usize * 4];
            writer.tensor(*name, shape, TensorType::F32, bytes).unwrap();
        }
        let mut file = Vec::new();
        writer.write_to(&mut file).unwrap();
        Touched::new(Gguf::parse(file).unwrap().header())
    }

    #[test]
    fn an_embedding_beside_a_head_costs_a_row() {
        let tensors: [(&str, &[u64]); 4] = [
            ("token_embd.weight", &[8, 100]),
            ("blk.0.attn_norm.weight", &[8]),
            ("blk.0.attn_q.weight", &[8, 16]),
            ("output.weight", &[8, 100]),
        ];
        let expected =
            Touched { parameters: 1736, bytes: 4 * (8 + 128 + 800), layer_macs: 128, head_macs: 800 };
        assert_eq!(touched(&tensors), expected);
        let tied = Touched { parameters: 936, ..expected };
        assert_eq!(touched(&tensors[..3]), tied, "the embedding is the head, and read whole");
    }

    #[test]
    fn experts_count_as_far_as_they_are_used() {
        let tensors: [(&str, &[u64]); 3] = [
            ("token_embd.weight", &[8, 10]),
            ("position_embd.weight", &[8, 50]),
            ("blk.0.ffn_up_exps.weight", &[8, 6, 4]),
        ];
        let expected = Touched { parameters: 672, bytes: 4 * (80 + 96), layer_macs: 96, head_macs: 80 };
        assert_eq!(touched(&tensors), expected);
    }
}
