"""A reader of stores in plain Python, written from `shards/FORMAT.md`: neither seit nor numpy.

It checks checksums and little else, is slow, and shows how much code a reader takes.
"""

import gzip
import hashlib
import json
import lzma
import struct
import zlib

CRC_TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    CRC_TABLE.append(number)


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ CRC_TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def unsealed(data):
    assert struct.unpack("<I", data[-4:])[0] == crc32c(data[:-4]), "checksum"
    return data[:-4]


def read_store(path):
    """Split name → {"tokens": grids, "labels", "keys", "metadata"}, as `expected.json` has them."""
    card = read_card((path / "store.json").read_bytes())
    height, width = card["tokenizer"]["grid"]
    num_codes = card["tokenizer"]["codebook_size"]
    decode = PackedTokens(num_codes, height, width)
    if card["codec"]["name"] == "context":
        tensors = read_safetensors((path / "codebook.safetensors").read_bytes())
        decode = ContextTokens(num_codes, height, width, tensors["codec.tables"])
    read = {"wds": read_tars, "zarr": read_group}[card["container"]]
    splits = {}
    for name, entry in card["splits"].items():
        columns = {"tokens": [], "labels": [], "keys": [], "metadata": []}
        for block in read(path, card, name, decode):
            for column, values in block.items():
                columns[column] += values
        assert {len(values) for values in columns.values()} == {entry["samples"]}
        splits[name] = columns
    return splits


def read_card(data):
    """Sections 2: the seal, the version, the rest."""
    head, tail = data[:-83], data[-83:]
    assert tail[:15] == b',\n  "sha256": "', "no seal"
    assert tail[15:79].decode() == hashlib.sha256(head + b"\n}\n").hexdigest(), "seal"
    card = json.loads(data)
    assert (card["format"], card["version"]) == ("seit-store", 1)
    check_names(card)
    return card


def check_names(card):
    """Names that become folders and files."""
    ending = ".zarr" if card["container"] == "zarr" else ""
    records = card["files"] + [
        shard for entry in card["splits"].values() for shard in entry["shards"]
    ]
    paths = ["store.json"] + [record["file"] for record in records]
    assert len(set(paths)) == len(paths), "twice"
    for split in card["splits"]:
        assert is_plain(split, 240), "split"
    folders = {split + ending for split in card["splits"]}
    for path in paths:
        parts = path.split("/")
        assert all(is_plain(part, 247) for part in parts), "path"
        assert len(path.encode()) <= 1024, "path"
        assert not path.endswith(".partial"), "path"
        folders |= {"/".join(parts[:end]) for end in range(1, len(parts))}
    assert not folders & set(paths), "a file and a folder"


def is_plain(name, most_bytes):
    if not name or name[0] == "." or any(mark in name for mark in "/\\:"):
        return False
    if any(ord(mark) < 32 or 127 <= ord(mark) < 160 for mark in name):
        return False
    return len(name.encode()) <= most_bytes


def read_safetensors(data):
    size = struct.unpack_from("<Q", data)[0]
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        start, end = entry["data_offsets"]
        tensors[name] = data[8 + size + start : 8 + size + end]
    return tensors


# Sections 3 and 4: tars and frames


def read_tars(path, card, split, decode):
    index_file = f"{split}/blocks.index"
    index = None
    if any(record["file"] == index_file for record in card["files"]):
        index = (path / index_file).read_bytes()
    for shard in card["splits"][split]["shards"]:
        data = (path / shard["file"]).read_bytes()
        num_blocks = -(-shard["samples"] // card["block_samples"])
        if index is None:
            blocks = blocks_by_headers(data)
        else:
            size = 24 + 16 * num_blocks
            blocks, index = blocks_by_index(data, index[:size]), index[size:]
        assert len(blocks) == num_blocks
        for number, members in enumerate(blocks):
            count = min(card["block_samples"], shard["samples"] - number * card["block_samples"])
            yield read_block(members, count, decode)


def blocks_by_headers(data):
    blocks, position = [], 0
    while any(header := data[position : position + 512]):
        checksum = sum(header) - sum(header[148:156]) + 8 * 32
        assert int(header[148:156].rstrip(b"\0 "), 8) == checksum
        assert header[257:262] == b"ustar"
        name = header[:100].rstrip(b"\0").decode()
        size = int(header[124:136].rstrip(b"\0 "), 8)
        block, column = name.split("-")[1].split(".")
        if int(block) == len(blocks):
            blocks.append({})
        blocks[int(block)][column] = data[position + 512 : position + 512 + size]
        position += 512 + -(-size // 512) * 512
    assert not any(data[position:])
    return blocks


def blocks_by_index(data, frame):
    count, raw = open_frame(frame, 5)
    blocks, position = [], 0
    for number in range(count):
        members = {}
        sizes = struct.unpack_from("<4I", raw, 16 * number)
        for column, size in zip(("tokens", "labels", "keys", "metadata"), sizes, strict=True):
            if size:
                members[column] = data[position + 512 : position + 512 + size]
                position += 512 + -(-size // 512) * 512
        blocks.append(members)
    return blocks


def read_block(members, count, decode):
    labels_count, labels = open_frame(members["labels"], 2)
    keys = split_strings(*open_frame(members["keys"], 3))
    metadata = ["{}"] * count
    if "metadata" in members:
        metadata = split_strings(*open_frame(members["metadata"], 4))
    assert count == labels_count == len(keys) == len(metadata)
    return {
        "tokens": decode.frame(members["tokens"]),
        "labels": list(struct.unpack(f"<{count}i", labels)),
        "keys": keys,
        "metadata": [json.loads(text) for text in metadata],
    }


def open_frame(data, kind):
    """The number of samples and the raw payload."""
    magic, version, found, coding, reserved, count, size = struct.unpack_from("<4sBBBBIQ", data)
    assert (magic, version, found, reserved) == (b"SEIT", 1, kind, 0)
    payload = unsealed(data)[20:]
    if coding == 1:
        payload = zlib.decompress(payload)
    if coding < 2:
        assert len(payload) == size
    return count, payload


def split_strings(count, raw):
    lengths = struct.unpack_from(f"<{count}I", raw)
    strings, position = [], 4 * count
    for length in lengths:
        strings.append(raw[position : position + length].decode())
        position += length
    assert position == len(raw)
    return strings


# Section 5: packed tokens


class PackedTokens:
    def __init__(self, num_codes, height, width):
        self.num_codes, self.height, self.width = num_codes, height, width
        self.length = height * width
        self.bits = max(1, (num_codes - 1).bit_length())
        self.planes = []
        shift = 0
        for plane_width in (8, 8, 8, 8, 4, 2, 1):
            if self.bits - shift >= plane_width:
                self.planes.append((shift, plane_width))
                shift += plane_width
        assert shift == self.bits

    def frame(self, data):
        count, raw = open_frame(data, 1)
        assert data[6] == 0
        return self.unpack(count, raw)

    def unpack(self, count, raw):
        grids, position = [], 0
        for _ in range(count):
            ids = [0] * self.length
            for shift, width in self.planes:
                for token in range(self.length):
                    byte = raw[position + token // (8 // width)]
                    value = byte >> (width * (token % (8 // width))) & ((1 << width) - 1)
                    ids[token] |= value << shift
                position += -(-self.length * width // 8)
            grids.append(self.as_grid(ids))
        assert position == len(raw)
        return grids

    def as_grid(self, ids):
        assert max(ids) < self.num_codes
        return [ids[start : start + self.width] for start in range(0, self.length, self.width)]


# Section 6: context-coded tokens


class ContextTokens(PackedTokens):
    def __init__(self, num_codes, height, width, tables):
        super().__init__(num_codes, height, width)
        self.levels = [min(5, self.bits - start) for start in range(0, self.bits, 5)]
        self.bases, depth, self.num_nodes = [], 0, 0
        for levels in self.levels:
            self.bases.append(self.num_nodes)
            depth += levels
            self.num_nodes += 1 << depth
        self.first_nodes = 1 << self.levels[0]
        raw = memoryview(lzma.decompress(tables))
        assert struct.unpack_from("<BBHI", raw) == (1, 3, 96, num_codes)
        position = 8

        def take(letter, count):
            nonlocal position
            values = struct.unpack_from(f"<{count}{letter}", raw, position)
            position += struct.calcsize(f"<{count}{letter}")
            return values

        self.code_of = {path: code for code, path in enumerate(take("H", num_codes))}
        self.squash = take("H", 193)
        self.bias = take("h", self.num_nodes)
        self.weights = take("b", 2 * (num_codes + 1) * self.num_nodes)
        self.corner = take("b", (num_codes + 1) * self.first_nodes)
        assert position == len(raw)

    def frame(self, data):
        if data[6] == 0:
            return super().frame(data)
        assert data[6] == 2
        count, payload = open_frame(data, 1)
        words = struct.unpack(f"<{len(payload) // 2}H", payload)
        grids, start = [], count
        for size in words[:count]:
            grids.append(self.as_grid(self.decode(words[start : start + size])))
            start += size
        assert start == len(words)
        return grids

    def decode(self, words):
        state, position = words[0] << 16 | words[1], 2
        ids = []
        for token in range(self.length):
            row, column = divmod(token, self.width)
            left = ids[token - 1] if column else self.num_codes
            upper = ids[token - self.width] if row else self.num_codes
            corner = self.num_codes
            if row and column + 1 < self.width:
                corner = ids[token - self.width + 1]
            leaf = 0
            for group, levels in enumerate(self.levels):
                start = self.bases[group] + (leaf << levels)
                slot, low, size, node = state & 0x7FFF, 0, 1 << 15, 1
                for level in range(levels, 0, -1):
                    probability = self.probability(start + node, left, upper, corner, group)
                    leaves = 1 << level
                    first = leaves // 2 + ((size - leaves) * probability >> 15)
                    turn = slot >= low + first
                    low, size = (low + first, size - first) if turn else (low, first)
                    node = 2 * node + turn
                state = size * (state >> 15) + slot - low
                if state < 1 << 16 and position < len(words):
                    state = state << 16 | words[position]
                    position += 1
                leaf = (leaf << levels) + node - (1 << levels)
            ids.append(self.code_of[leaf])
        assert state == 0
        assert position == len(words)
        return ids

    def probability(self, node, left, upper, corner, group):
        plane = (self.num_codes + 1) * self.num_nodes
        near = self.weights[plane + upper * self.num_nodes + node] + self.bias[node]
        score = self.weights[left * self.num_nodes + node] + max(-128, min(127, near))
        if group == 0:
            score += self.corner[corner * self.first_nodes + node]
        return self.squash[max(-96, min(96, score)) + 96]


# Section 7: Zarr groups


def read_group(path, card, split, decode):
    shards = card["splits"][split]["shards"]
    total = card["splits"][split]["samples"]
    block_samples = card["block_samples"]
    rows = max(1, min(block_samples, total))
    blocks = max(1, -(-total // block_samples))
    if len(shards) > 1:
        blocks = shards[0]["samples"] // block_samples
    listed = {record["file"] for record in card["files"]}
    for number, shard in enumerate(shards):
        files = {"tokens": shard["file"]}
        for column in ("labels", "keys", "metadata"):
            if f"{split}.zarr/{column}/zarr.json" in listed:
                files[column] = f"{split}.zarr/{column}/c/{number}"
        chunks = {
            column: read_chunks((path / file).read_bytes(), blocks)
            for column, file in files.items()
        }
        for block in range(-(-shard["samples"] // rows)):
            count = min(rows, shard["samples"] - block * rows)
            of_block = {column: chunk[block] for column, chunk in chunks.items()}
            yield read_chunk_block(of_block, rows, count, decode)


def read_chunks(data, num_blocks):
    size = 16 * num_blocks + 4
    index = unsealed(data[-size:])
    chunks = []
    for number in range(num_blocks):
        start, length = struct.unpack_from("<QQ", index, 16 * number)
        chunks.append(data[start : start + length] if start != 2**64 - 1 else None)
    return chunks


def read_chunk_block(chunks, rows, count, decode):
    grids = decode.frame(chunks["tokens"]) if chunks["tokens"] else []
    grids += [[[0] * decode.width for _ in range(decode.height)] for _ in range(count - len(grids))]
    labels = [-1] * rows
    if chunks["labels"]:
        labels = list(struct.unpack(f"<{rows}i", unsealed(chunks["labels"])))
    keys = read_texts(chunks["keys"], rows, "")
    metadata = read_texts(chunks.get("metadata"), rows, "{}")
    return {
        "tokens": grids,
        "labels": labels[:count],
        "keys": keys[:count],
        "metadata": [json.loads(text) for text in metadata[:count]],
    }


def read_texts(chunk, rows, fill):
    if chunk is None:
        return [fill] * rows
    raw = gzip.decompress(unsealed(chunk))
    assert struct.unpack_from("<I", raw)[0] == rows
    texts, position = [], 4
    for _ in range(rows):
        (length,) = struct.unpack_from("<I", raw, position)
        texts.append(raw[position + 4 : position + 4 + length].decode())
        position += 4 + length
    assert position == len(raw)
    return texts
