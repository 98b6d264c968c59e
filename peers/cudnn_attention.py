"""cuDNN's attention, through PyTorch, on the tensors of a file.

    crossover inputs attention -p T=2048,Hq=16,causal=true --out in.safetensors
    python peers/cudnn_attention.py --causal in.safetensors out.safetensors
    crossover verify attention --causal --inputs in.safetensors --outputs out.safetensors

q [B,Tq,Hq,D], k [B,Tkv,Hkv,D], v [B,Tkv,Hkv,Dv] in bf16 or fp16; writes o [B,Tq,Hq,Dv]. A causal
mask needs Tq = Tkv: PyTorch aligns it to the top left. Prints the versions as one JSON object.
"""

import argparse
import json

import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = ["CUDNN_ATTENTION", "FLASH_ATTENTION"]


def compute(inputs, outputs, causal=False, scale=None, backend="CUDNN_ATTENTION"):
    """Runs the file `inputs` through the backend into the file `outputs`."""
    tensors = load_file(inputs, device="cuda")
    if "cu_seqlens_q" in tensors:
        raise SystemExit(f"{inputs}: packed sequences are not supported here")
    q, k, v = (tensors[name].transpose(1, 2) for name in "qkv")
    if causal and q.shape[2] != k.shape[2]:
        raise SystemExit(f"{inputs}: --causal needs as many keys as queries")
    with sdpa_kernel(getattr(SDPBackend, backend)):
        o = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
    save_file({"o": o.transpose(1, 2).contiguous().cpu()}, outputs)


def versions(backend):
    return {
        "backend": backend,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "device": torch.cuda.get_device_name(),
    }


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--causal", action="store_true")
    args.add_argument("--scale", type=float)
    args.add_argument("--backend", default=BACKENDS[0], choices=BACKENDS)
    args.add_argument("inputs")
    args.add_argument("outputs")
    args = args.parse_args()
    compute(args.inputs, args.outputs, args.causal, args.scale, args.backend)
    print(json.dumps(versions(args.backend)))


if __name__ == "__main__":
    main()
