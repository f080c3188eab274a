#!/usr/bin/env python3
"""Give a model of bench/engine/models.py a real vocabulary, so that its commands have as many tokens as real ones have.

usage: model.py MODEL.gguf VOCABULARY.gguf OUT.gguf

VOCABULARY.gguf is any file with a vocabulary of the same size: for the 164m shape, llama.cpp's models/ggml-vocab-gpt-2.gguf.
Needs PyPI: numpy, gguf.
"""

import pathlib
import sys

import gguf


def copy_field(writer, field):
    if field.types[0] != gguf.GGUFValueType.ARRAY:
        writer.add_key_value(field.name, field.contents(), field.types[0])
    elif field.types[-1] == gguf.GGUFValueType.STRING:
        writer.add_array(field.name, [bytes(field.parts[index]) for index in field.data])
    else:
        writer.add_array(field.name, [field.parts[index].tolist()[0] for index in field.data])


def main(model_file, vocabulary_file, out_file):
    model, vocabulary = gguf.GGUFReader(model_file), gguf.GGUFReader(vocabulary_file)
    count = lambda reader: len(reader.fields["tokenizer.ggml.tokens"].data)
    if count(model) != count(vocabulary):
        sys.exit(f"{vocabulary_file}: {count(vocabulary)} tokens, expected {count(model)} as in {model_file}")
    # A half-written file must not be taken for a whole one.
    partial = pathlib.Path(out_file + ".partial")
    writer = gguf.GGUFWriter(partial, model.fields["general.architecture"].contents())
    for field in model.fields.values():
        if not field.name.startswith(("GGUF.", "tokenizer.", "general.architecture")):
            copy_field(writer, field)
    for field in vocabulary.fields.values():
        if field.name.startswith("tokenizer."):
            copy_field(writer, field)
    for tensor in model.tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in model.tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()
    partial.rename(out_file)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
