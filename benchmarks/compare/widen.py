"""Widens a small llama model of F16 weights with zeros, so that its rows are whole blocks of every type.

Rows of 128 weights cannot be stored in types of 256 to a block. The widened model has several times the embedding and the
heads, the added ones zero, and a feed-forward width of whole blocks. It computes what the original does: a zero head adds
nothing, and the norms' weights and epsilon make up for the mean over more elements."""
import math
import struct

BLOCK = 256
# Bytes of the numbers of metadata, by their types.
NUMBER_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
F32, F16 = 0, 1
ELEMENT_BYTES = {F32: 4, F16: 2}
ALIGNMENT = 32


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, n):
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, format):
        return struct.unpack("<" + format, self.bytes(struct.calcsize("<" + format)))[0]

    def string(self):
        return self.bytes(self.number("Q"))

    def value(self, kind):
        """The bytes of a value as they are."""
        start = self.at
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            inner, n = self.number("I"), self.number("Q")
            for _ in range(n):
                self.value(inner)
        else:
            self.bytes(NUMBER_BYTES[kind])
        return self.data[start : self.at]


def read(data):
    """Metadata as {key: (type, bytes)} and tensors as [(name, dimensions, type, bytes)] of a GGUF file."""
    reader = Reader(data)
    magic, version = reader.bytes(4), reader.number("I")
    if (magic, version) != (b"GGUF", 3):
        raise ValueError("this is no GGUF file of version 3")
    n_tensors, n_keys = reader.number("Q"), reader.number("Q")
    metadata, infos, tensors = {}, [], []
    for _ in range(n_keys):
        key, kind = reader.string().decode(), reader.number("I")
        metadata[key] = (kind, reader.value(kind))
    for _ in range(n_tensors):
        name = reader.string().decode()
        dimensions = [reader.number("Q") for _ in range(reader.number("I"))]
        infos.append((name, dimensions, reader.number("I"), reader.number("Q")))
    start = -(-reader.at // ALIGNMENT) * ALIGNMENT
    for name, dimensions, kind, offset in infos:
        if kind not in ELEMENT_BYTES:
            raise ValueError(f"{name} is neither F32 nor F16")
        n = math.prod(dimensions) * ELEMENT_BYTES[kind]
        tensors.append((name, dimensions, kind, data[start + offset :][:n]))
    return metadata, tensors


def write(metadata, tensors):
    string = lambda text: struct.pack("<Q", len(text.encode())) + text.encode()
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [string(key) + struct.pack("<I", kind) + value for key, (kind, value) in metadata.items()]
    offset, data = 0, []
    for name, dimensions, kind, content in tensors:
        parts.append(string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset))
        data.append(content + bytes(-len(content) % ALIGNMENT))
        offset += len(data[-1])
    head = b"".join(parts)
    return head + bytes(-len(head) % ALIGNMENT) + b"".join(data)


def widened(data):
    """The widened model of a file, both as bytes."""
    metadata, tensors = read(data)
    key = lambda name: "llama." + name
    number = lambda name, format="I": struct.unpack("<" + format, metadata[key(name)][1])[0]
    width, forward = number("embedding_length"), number("feed_forward_length")
    factor = BLOCK // width
    if factor * width != BLOCK:
        raise ValueError(f"a width of {width} is no part of {BLOCK}")
    epsilon = number("attention.layer_norm_rms_epsilon", "f") / factor
    changed = {"embedding_length": BLOCK, "feed_forward_length": -(-forward // BLOCK) * BLOCK}
    changed |= {name: number(name) * factor for name in ("attention.head_count", "attention.head_count_kv")}
    # Where the file says nothing of the size of a head, it is the width by the heads, and stays.
    for name, value in changed.items():
        metadata[key(name)] = (4, struct.pack("<I", value))
    metadata[key("attention.layer_norm_rms_epsilon")] = (6, struct.pack("<f", epsilon))
    larger = lambda n: changed["feed_forward_length"] if n == forward else n * factor
    return write(metadata, [widened_tensor(tensor, larger, factor) for tensor in tensors])


def widened_tensor(tensor, larger, factor):
    name, dimensions, kind, content = tensor
    if len(dimensions) == 1:
        weights = struct.unpack(f"<{dimensions[0]}f", content)
        weights = [weight / math.sqrt(factor) for weight in weights] + [0.0] * (larger(dimensions[0]) - dimensions[0])
        return name, [len(weights)], kind, struct.pack(f"<{len(weights)}f", *weights)
    row, n_rows = dimensions
    # The rows of these two are tokens.
    new_rows = n_rows if name in ("token_embd.weight", "output.weight") else larger(n_rows)
    size = ELEMENT_BYTES[kind]
    rows = [content[i * row * size :][: row * size] + bytes((larger(row) - row) * size) for i in range(n_rows)]
    rows += [bytes(larger(row) * size)] * (new_rows - n_rows)
    return name, [larger(row), new_rows], kind, b"".join(rows)
