//! The wire format of protocol buffers (protobuf.dev/programming-guides/encoding), as far as ONNX needs it: written, never read.

/// The bytes of one message, field by field.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn int(mut self, field: u32, value: i64) -> Self {
        self.varint(u64::from(field) << 3 | VARINT);
        // Negative numbers take ten bytes: their two's complement.
        self.varint(value as u64);
        self
    }

    pub(crate) fn float(mut self, field: u32, value: f32) -> Self {
        self.varint(u64::from(field) << 3 | FIXED_32);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// The beginning of a field of `length` bytes, which follow.
    pub(crate) fn opening(mut self, field: u32, length: u64) -> Self {
        self.varint(u64::from(field) << 3 | LENGTH);
        self.varint(length);
        self
    }

    pub(crate) fn bytes(self, field: u32, bytes: &[u8]) -> Self {
        let mut message = self.opening(field, bytes.len() as u64);
        message.0.extend(bytes);
        message
    }

    pub(crate) fn text(self, field: u32, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub(crate) fn message(self, field: u32, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }

    /// A repeated number, packed.
    pub(crate) fn ints(self, field: u32, values: &[i64]) -> Self {
        let mut packed = Message::new();
        values.iter().for_each(|value| packed.varint(*value as u64));
        self.bytes(field, &packed.0)
    }

    /// The same field once for each message.
    pub(crate) fn messages<'m>(self, field: u32, messages: impl IntoIterator<Item = &'m Message>) -> Self {
        messages.into_iter().fold(self, |message, inner| message.message(field, inner))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification.
    #[test]
    fn fields_are_encoded_as_specified() {
        assert_eq!(Message::new().int(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().text(2, "testing").as_bytes(), b"\x12\x07testing");
        let inner = Message::new().int(1, 150);
        assert_eq!(Message::new().message(3, &inner).as_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(
            Message::new().ints(6, &[3, 270, 86942]).as_bytes(),
            [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]
        );
        assert_eq!(Message::new().int(1, -2).len(), 11);
        assert_eq!(Message::new().float(2, 1.0).as_bytes(), [0x15, 0, 0, 0x80, 0x3f]);
        assert_eq!(Message::new().int(16, 1).as_bytes(), [0x80, 0x01, 0x01]);
    }
}
