"""bitsandbytes' 4-bit formats in numpy, from their description (loader/exported_tensor.h and
kernels/block_format.h): slow, and independent of both sides that are compared."""

import json

import numpy as np

NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
     -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
     0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], dtype=np.float32)

# kernels/nf4_format.h has them by name: halfway between the values, as CUDA's kernels round them.
NF4_THRESHOLDS = np.array(
    [-0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544,
     -0.23460740596055984, -0.13791173323988914, -0.045525018125772476, 0.03979014977812767,
     0.1202552504837513, 0.2035212516784668, 0.2920137718319893, 0.3893125355243683,
     0.5016634166240692, 0.6427869200706482, 0.8614784181118011], dtype=np.float32)


def blocks(values, block_size):
    """[blocks, block_size], the last block padded with zeros."""
    flat = values.astype(np.float32).reshape(-1)
    padded = np.zeros(-(-flat.size // block_size) * block_size, dtype=np.float32)
    padded[:flat.size] = flat
    return padded.reshape(-1, block_size)


def quantize_nf4(values, block_size=64):
    """Packed codes and absmax of a tensor without zero blocks and subnormals."""
    rows = blocks(values, block_size)
    absmax = np.abs(rows).max(axis=1)
    scaled = rows * (np.float32(1) / absmax)[:, None]
    codes = np.searchsorted(NF4_THRESHOLDS, scaled.reshape(-1), side="left").astype(np.uint8)
    return pack(codes[:values.size + values.size % 2]), absmax


def pack(codes):
    return (codes[0::2] << 4 | codes[1::2]).astype(np.uint8)


def unpack(packed):
    packed = packed.reshape(-1)
    return np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)


class Stored:
    """One tensor of a 4-bit checkpoint, from the tensors of its files."""

    def __init__(self, name, tensors):
        key = next(key for key in tensors if key.startswith(name + ".quant_state."))
        self.state = json.loads(bytes(tensors[key]).decode())
        self.packed = tensors[name]
        self.absmax = tensors[name + ".absmax"]
        self.map = tensors[name + ".quant_map"]
        self.nested_absmax = tensors.get(name + ".nested_absmax")
        self.nested_map = tensors.get(name + ".nested_quant_map")
        self.shape = tuple(self.state["shape"])
        self.straddles = self.shape[-1] % self.state["blocksize"] != 0

    def scales(self):
        if self.nested_map is None:
            return self.absmax
        size = self.state["nested_blocksize"]
        maxima = np.repeat(self.nested_absmax, size)[:self.absmax.size]
        offset = np.float32(self.state["nested_offset"])
        return self.nested_map[self.absmax] * maxima + offset

    def dequantize(self):
        """fp32."""
        count = int(np.prod(self.shape))
        values = self.map[unpack(self.packed)[:count]]
        scales = np.repeat(self.scales(), self.state["blocksize"])[:count]
        return (values * scales).reshape(self.shape)
