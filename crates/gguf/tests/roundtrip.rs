//! What is written is read back, byte for byte.

mod common;

use std::io::Write as _;

use common::{every_value, sample};
use ganglion_gguf::{Array, Gguf, GgufError, GgufWriter, OptionalExt, StringArray, TensorType, Value};
use proptest::prelude::*;

#[test]
fn every_type_survives() {
    let gguf = Gguf::parse(sample()).unwrap();
    let read: Vec<_> = gguf.metadata().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(read, every_value());
    let names: Vec<_> = gguf.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a", "blk.0.b", "c"]);
    assert_eq!(gguf.tensor_bytes("a").unwrap(), [1; 24]);
    assert_eq!(gguf.tensor_bytes("blk.0.b").unwrap(), [2; 34]);
    assert_eq!(gguf.tensor_bytes("c").unwrap(), [3; 2]);
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset % 32 == 0));
    assert_eq!(gguf.tensor("a").unwrap().shape, [3, 2]);
}

#[test]
fn typed_getters() {
    let gguf = Gguf::parse(sample()).unwrap();
    assert_eq!(gguf.get_u32("u8").unwrap(), 200);
    assert_eq!(gguf.get_i32("i16").unwrap(), -30_000);
    assert_eq!(gguf.get_u64("u64").unwrap(), u64::MAX);
    assert_eq!(gguf.get_f32("f64").unwrap(), -0.1);
    assert!(gguf.get_bool("bool").unwrap());
    assert_eq!(gguf.get_str("string").unwrap(), "grüße");
    assert_eq!(gguf.get_str_array("strings").unwrap().get(1), Some("▁a"));
    assert_eq!(gguf.get_f32_array("floats").unwrap(), [0.5, -1.0]);
    assert_eq!(gguf.get_u32_array("ints").unwrap(), [1, 2, 3]);
    assert_eq!(gguf.get_i32_array("ints").unwrap(), [1, 2, 3]);
    let message = |error: GgufError| error.to_string();
    assert_eq!(
        message(gguf.get_u32("i8").unwrap_err()),
        "metadata key `i8` holds i8 -100, expected an integer of 0 to 4294967295"
    );
    assert_eq!(
        message(gguf.get_f32_array("strings").unwrap_err()),
        "metadata key `strings` holds an array of 3 string, expected an array of f32"
    );
    assert!(matches!(gguf.get_u32("absent"), Err(GgufError::MissingKey { key }) if key == "absent"));
    assert_eq!(gguf.get_u32("absent").optional().unwrap(), None);
    assert!(gguf.get_u32("string").optional().is_err());
    assert!(matches!(gguf.tensor_bytes("absent"), Err(GgufError::MissingTensor { .. })));
}

#[test]
fn files_are_replaced_whole() {
    let directory = std::env::temp_dir().join(format!("ganglion-gguf-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("model.gguf");
    let entries = || std::fs::read_dir(&directory).unwrap().count();

    let mut writer = GgufWriter::new();
    writer.metadata("general.alignment", 64u32).unwrap();
    writer.tensor("t", &[2], TensorType::F32, &[7u8; 8][..]).unwrap();
    writer.tensor("u", &[1], TensorType::F32, &[8u8; 4][..]).unwrap();
    writer.write_file(&path).unwrap();
    assert_eq!(entries(), 1);
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.tensor_bytes("t").unwrap(), [7; 8]);
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset % 64 == 0));
    assert_eq!(gguf.sha256().len(), 64);
    assert_eq!(gguf.sha256(), Gguf::parse(std::fs::read(&path).unwrap()).unwrap().sha256());

    // A producer that fails leaves the old file, and no temporary one.
    let cases: [&[u8]; 2] = [&[0; 3], &[0; 5]];
    for data in cases {
        let mut writer = GgufWriter::new();
        writer.tensor_with("t", &[1], TensorType::F32, move |out| out.write_all(data)).unwrap();
        let error = writer.write_file(&path).unwrap_err();
        assert!(matches!(error, GgufError::Unwritable { .. }), "{error}");
        assert_eq!(entries(), 1);
    }
    assert_eq!(Gguf::open(&path).unwrap().sha256(), gguf.sha256());

    std::fs::File::create(directory.join("empty")).unwrap().flush().unwrap();
    let error = Gguf::open(directory.join("empty")).unwrap_err().to_string();
    assert!(error.contains("empty: offset 0: magic of header needs 4 bytes"), "{error}");
    let error = Gguf::open(&directory).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_layout_is_where_things_are_written() {
    let mut writer = GgufWriter::new();
    writer.metadata("general.name", "x").unwrap();
    writer.tensor("a", &[3, 2], TensorType::F32, vec![1u8; 24]).unwrap();
    writer.tensor("b", &[32], TensorType::Q8_0, vec![2u8; 34]).unwrap();
    let layout = writer.layout().unwrap();
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    assert_eq!(layout.size_bytes, bytes.len() as u64);
    assert_eq!(layout.header, bytes[..layout.header.len()]);
    let parts = layout.tensors.iter().map(|range| &bytes[range.start as usize..range.end as usize]);
    assert_eq!(parts.collect::<Vec<_>>(), [&[1u8; 24][..], &[2u8; 34][..]]);
}

#[test]
fn sha256_of_known_bytes() {
    // An empty file: header only. The digest was computed with coreutils' sha256sum.
    let mut bytes = Vec::new();
    GgufWriter::new().write_to(&mut bytes).unwrap();
    assert_eq!(bytes, b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let gguf = Gguf::parse(bytes).unwrap();
    assert_eq!(gguf.sha256(), "a4e5e156ddec27e286f75328784d7106b60a4eb1d246e950a001a3f944fbda99");
}

#[test]
fn writer_refuses_what_the_reader_would() {
    let mut writer = GgufWriter::new();
    writer.metadata("k", 1u8).unwrap();
    assert!(matches!(writer.metadata("k", 2u8), Err(GgufError::Duplicate { .. })));
    assert!(writer.metadata("general.alignment", 24u32).is_err());
    assert!(writer.metadata("general.alignment", 32u64).is_err());
    assert!(writer.metadata("x".repeat(65_536), 1u8).is_err());
    let deep = (0..4).fold(Array::U8(vec![]), |array, _| Array::Array(vec![array]));
    assert!(writer.metadata("deep", deep).is_err());
    assert!(writer.tensor("t", &[31], TensorType::Q8_0, vec![0; 34]).is_err());
    assert!(writer.tensor("t", &[32], TensorType::Q8_0, vec![0; 33]).is_err());
    assert!(writer.tensor("t", &[1; 5], TensorType::I8, vec![0; 1]).is_err());
    assert!(writer.tensor("n".repeat(64), &[1], TensorType::I8, vec![0; 1]).is_err());
    writer.tensor("t", &[1], TensorType::I8, vec![0; 1]).unwrap();
    assert!(matches!(writer.tensor("t", &[1], TensorType::I8, vec![0; 1]), Err(GgufError::Duplicate { .. })));
}

#[test]
fn real_vocabularies_rewrite_identically() {
    let Some(shared) = common::shared() else { return };
    for name in ["gpt-2", "llama-spm", "qwen2"] {
        let path = shared.join(format!("data/vocab/ggml-vocab-{name}.gguf"));
        let gguf = Gguf::open(&path).unwrap();
        let mut writer = GgufWriter::new();
        for (key, value) in gguf.metadata() {
            writer.metadata(key, value.clone()).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write_to(&mut bytes).unwrap();
        // Files without tensors may end in padding.
        let (head, padding) = gguf.bytes().split_at(bytes.len());
        assert!(head == bytes, "{name}");
        assert!(padding.len() < 32 && padding.iter().all(|&byte| byte == 0), "{name}");
    }
}

fn any_array(depth: u32) -> BoxedStrategy<Array> {
    let leaf = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..9).prop_map(Array::U8),
        prop::collection::vec(any::<i16>(), 0..9).prop_map(Array::I16),
        prop::collection::vec(any::<u32>(), 0..9).prop_map(Array::U32),
        prop::collection::vec(any::<f32>(), 0..9).prop_map(Array::F32),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        prop::collection::vec(any::<i64>(), 0..9).prop_map(Array::I64),
        prop::collection::vec(any::<f64>(), 0..9).prop_map(Array::F64),
        prop::collection::vec(".{0,12}", 0..9).prop_map(|v| Array::String(v.iter().collect::<StringArray>())),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![4 => leaf, 1 => prop::collection::vec(any_array(depth - 1), 0..4).prop_map(Array::Array)]
        .boxed()
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::U64),
        any::<f64>().prop_map(Value::F64),
        ".{0,40}".prop_map(Value::String),
        any_array(3).prop_map(Value::Array),
    ]
}

type AnyTensor = (usize, u64, u64, u8);

fn write(metadata: &[(String, Value)], tensors: &[AnyTensor], alignment: Option<u32>) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    if let Some(alignment) = alignment {
        writer.metadata("general.alignment", alignment).unwrap();
    }
    for (index, (key, value)) in metadata.iter().enumerate() {
        writer.metadata(format!("{index}.{key}"), value.clone()).unwrap();
    }
    for (index, &(dtype, blocks, rows, fill)) in tensors.iter().enumerate() {
        let dtype = TensorType::ALL[dtype % TensorType::ALL.len()];
        let shape = [blocks * dtype.block_size() as u64, rows * dtype.block_rows() as u64];
        let data = vec![fill; dtype.size_bytes(&shape).unwrap() as usize];
        writer.tensor(format!("t{index}"), &shape, dtype, data).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write_to(&mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn round_trip(
        metadata in prop::collection::vec(("[a-z.]{1,12}", any_value()), 0..8),
        tensors in prop::collection::vec((0usize..64, 1u64..3, 1u64..4, any::<u8>()), 0..5),
        alignment in prop::option::of(prop::sample::select(vec![8u32, 16, 32, 64, 4096])),
    ) {
        let bytes = write(&metadata, &tensors, alignment);
        let gguf = Gguf::parse(bytes.clone()).unwrap();
        prop_assert_eq!(gguf.alignment_bytes(), alignment.unwrap_or(32) as usize);

        let mut again = GgufWriter::new();
        for (key, value) in gguf.metadata() {
            again.metadata(key, value.clone()).unwrap();
        }
        for (tensor, made) in gguf.tensors().iter().zip(&tensors) {
            let data = gguf.tensor_bytes(&tensor.name).unwrap();
            prop_assert!(data.iter().all(|&byte| byte == made.3));
            again.tensor(tensor.name.clone(), &tensor.shape, tensor.dtype, data).unwrap();
        }
        let mut rewritten = Vec::new();
        again.write_to(&mut rewritten).unwrap();
        prop_assert_eq!(rewritten, bytes);
    }
}
