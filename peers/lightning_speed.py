"""Other people's linear attention with a fixed decay (`lightning`), timed as docs/method.md has it.

    python peers/lightning_speed.py --sglang DIR --vllm DIR --out peers-lightning.jsonl

MiniMax-Text-01's shape: 64 heads of 128, bf16, states in fp32, scale 1, slopes of its first layer. Prefill
starts from nothing and writes the last state; decode reads a state of normal numbers and updates it.
Inputs are drawn as the family `random` draws them: normal, through SiLU, q and k times K^-0.25.

| impl | calls | to be had |
|---|---|---|
| `fla` | `chunk_simple_gla`, `fused_recurrent_simple_gla`, g_gamma = -s | package fla-core |
| `sglang` | `seg_la_fwd` | --sglang: a folder with its wheel unpacked, or those files alone |
| `vllm` | `lightning_attention`, `linear_decode_forward_triton` | --vllm: likewise |
| `vllm-v32` | vLLM's prefill given the least it takes: q and k in bf16, v alone in fp32 | likewise |

fla's `chunk_lightning_attn` has another decay than the checkpoints. Kernels are timed, not servers: inputs
lie as a call wants them, and slots and lengths are on the device already. What a call allocates, clears or
adds up itself is timed. Kernels that tune themselves do so anew for each problem.

Output and state are held against the recurrence in fp64 first: E, the relative Frobenius error of each.
Above 1e-2 there is no time. Timing is that of attention_speed.py, 256 MB overwritten before each sample.
Writes an object a line: impl, versions, calls, problem, e, e_state, ms, ci_ms, samples, settled, hidden;
or `error`; or `skipped` of a peer that is not there.
"""

import argparse
import gc
import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import torch
from attention_speed import measure

H, D = 64, 128
PREFILL = [(1, 1024), (1, 4096), (1, 16384), (1, 65536), (4, 4096)]
DECODE = [1, 16, 64, 256]
LIMIT = 1e-2
FLUSHED = 256 << 20


class Missing(Exception):
    """Why a peer cannot be measured here."""


# Each peer is a class of `versions` and two functions of q, k, v [B,T,H,D] in bf16, s [H] and, in decode,
# the state [B,H,K,V]. They return what a call is named, the call, and what makes o [B,T,H,V] and the state
# of its result.


class Fla:
    def __init__(self, _):
        os.environ["FLA_CACHE_RESULTS"] = "0"  # what the tuner found for another problem
        try:
            from importlib.metadata import version

            from fla.ops import simple_gla
        except ImportError as e:
            raise Missing(f"fla-core is not installed: {e}") from e
        self.gla = simple_gla
        self.versions = {"fla-core": version("fla-core")}

    def prefill(self, q, k, v, s):
        decay = {"g_gamma": -s, "scale": 1.0, "output_final_state": True}
        return (
            "chunk_simple_gla",
            lambda: self.gla.chunk_simple_gla(q, k, v, **decay),
            lambda out: out,
        )

    def decode(self, q, k, v, s, state):
        decay = {"g_gamma": -s, "scale": 1.0, "initial_state": state, "output_final_state": True}
        return (
            "fused_recurrent_simple_gla, a new state",
            lambda: self.gla.fused_recurrent_simple_gla(q, k, v, **decay),
            lambda out: out,
        )


class SgLang:
    def __init__(self, args):
        folder = given(args.sglang, "--sglang")
        self.la = alone(folder / "sglang/kernels/ops/attention/linear/seg_la.py")
        self.versions = {"sglang": version_of(folder, "sglang")}

    def _call(self, q, k, v, s, state, old):
        b, t = q.shape[:2]

        def ints(x):
            return torch.tensor(x, dtype=torch.int32, device=q.device)

        meta = self.la.SegLaMeta(
            batch_size=b,
            max_q_length=t,
            q_offsets=ints(range(0, b * t + 1, t)),
            s_offsets=ints(range(b)),
            q_lengths=ints([t] * b),
            s_scales=ints([old] * b),
        )
        q, k, v = (x.view(b * t, H, D) for x in (q, k, v))
        return (
            "seg_la_fwd, a pool in place",
            lambda: self.la.seg_la_fwd(q, k, v, state, s, meta, softmax_scale=1.0),
            lambda o: (o.view(b, t, H, D), state),
        )

    def prefill(self, q, k, v, s):
        state = torch.full((q.shape[0], H, D, D), torch.nan, device=q.device)
        return self._call(q, k, v, s, state, 0)

    def decode(self, q, k, v, s, state):
        return self._call(q, k, v, s, state, 1)


class Vllm:
    def __init__(self, args):
        folder = given(args.vllm, "--vllm")
        import triton

        self.la = alone(
            folder / "vllm/model_executor/layers/lightning_attn.py",
            {
                "vllm.platforms": {"current_platform": types.SimpleNamespace(is_cuda=lambda: True)},
                "vllm.triton_utils": {"triton": triton, "tl": triton.language},
                "vllm.v1.attention.backends.utils": {"PAD_SLOT_ID": -1},
            },
        )
        self.versions = {"vllm": version_of(folder, "vllm")}

    def prefill(self, q, k, v, s, wide="q, k and v"):
        # Its model hands over fp32; with v in bf16 the kernel does not compile.
        q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        v = v.float()
        if "q" in wide:
            q, k = q.float(), k.float()
        return (
            f"lightning_attention, [B,H,T,D], {wide} in fp32",
            lambda: self.la.lightning_attention(q, k, v, s),
            lambda out: (out[0].transpose(1, 2), out[1][:, :, -1]),
        )

    def decode(self, q, k, v, s, state):
        slots = torch.arange(q.shape[0], dtype=torch.int32, device=q.device)
        q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        return (
            "linear_decode_forward_triton, a pool in place",
            lambda: self.la.linear_decode_forward_triton(q, k, v, state, s, slots),
            lambda o: (o.view(-1, 1, H, D), state),
        )


class VllmV32(Vllm):
    def prefill(self, q, k, v, s):
        return super().prefill(q, k, v, s, wide="v")

    decode = None


PEERS = {"fla": Fla, "sglang": SgLang, "vllm": Vllm, "vllm-v32": VllmV32}


def given(folder, flag):
    if folder is None:
        raise Missing(f"no {flag} given")
    if not Path(folder).is_dir():
        raise Missing(f"{flag} {folder}: no such folder")
    return Path(folder)


def alone(path, stubs=None):
    """The module of one file, with stubs for what it would import of its package."""
    if not path.is_file():
        raise Missing(f"{path}: no such file")
    for name, members in (stubs or {}).items():
        parts = name.split(".")
        for n in range(1, len(parts) + 1):
            parent = ".".join(parts[:n])
            sys.modules.setdefault(parent, types.ModuleType(parent))
        vars(sys.modules[name]).update(members)
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def version_of(folder, name):
    """What the folder's dist-info says."""
    found = sorted(folder.glob(f"{name}-*.dist-info"))
    return found[0].name[len(name) + 1 : -len(".dist-info")] if found else "unknown"


def draw(b, t, decode):
    """q, k, v, s and, in decode, the state."""
    torch.manual_seed(0)

    def silu(factor):
        x = torch.nn.functional.silu(torch.randn(b, t, H, D, device="cuda"))
        return (x * factor).to(torch.bfloat16)

    x = [silu(D**-0.25), silu(D**-0.25), silu(1.0)]
    heads = torch.arange(1, H + 1, device="cuda", dtype=torch.float64)
    x.append((2.0 ** (-8 * heads / H) * (1 + 1e-5)).float())
    if decode:
        x.append(0.5 * torch.randn(b, H, D, D, device="cuda"))
    return x


def reference(q, k, v, s, state=None, chunk=256):
    """S = exp(-s) S + k v^T, o = S^T q in fp64: o of each chunk in turn, with S after it."""
    b, t = q.shape[:2]
    s = s.double()[:, None]
    state = torch.zeros(b, H, D, D, device=q.device).double() if state is None else state.double()
    for begin in range(0, t, chunk):
        qc, kc, vc = (x[:, begin : begin + chunk].transpose(1, 2).double() for x in (q, k, v))
        n = qc.shape[2]
        i = torch.arange(n, device=q.device).double()
        ago = i[:, None] - i
        decay = torch.where(ago >= 0, torch.exp(-s[:, None] * ago), 0.0)
        o = (qc * torch.exp(-s * (i + 1))[..., None]) @ state + (qc @ kc.mT * decay) @ vc
        state = torch.exp(-s * n)[..., None] * state
        state = state + (kc * torch.exp(-s * (n - 1 - i))[..., None]).mT @ vc
        yield o.transpose(1, 2), state


def errors(o, state, *inputs):
    """E of an output and of a state."""
    square = torch.zeros(2, device=o.device).double()
    at = 0
    for ref, last in reference(*inputs):
        part = o[:, at : at + ref.shape[1]].double()
        square += torch.stack([(part - ref).square().sum(), ref.square().sum()])
        at += ref.shape[1]
    e_state = (state.double() - last).norm() / last.norm()
    return (square[0] / square[1]).sqrt().item(), e_state.item()


def tune_anew():
    from triton.runtime.autotuner import Autotuner

    for x in gc.get_objects():
        if issubclass(type(x), Autotuner):
            x.cache.clear()


def case(peer, b, t, decode):
    inputs = draw(b, t, decode)
    own = [*inputs[:4], inputs[4].clone()] if decode else inputs
    tune_anew()
    row = {}
    row["calls"], call, view = (peer.decode if decode else peer.prefill)(*own)
    o, state = view(call())
    row["e"], row["e_state"] = errors(o, state, *inputs)
    del inputs, o, state
    if not (row["e"] <= LIMIT and row["e_state"] <= LIMIT):  # NaN is wrong
        return row | {"error": f"wrong: E above {LIMIT}"}
    return row | measure(call, FLUSHED)


def problem(b, t, decode):
    p = {"op": "lightning", "dtype": "bf16", "b": b, "t": t, "h": H, "k": D, "v": D, "scale": 1.0}
    p |= {"initial_state": decode, "final_state": True}
    return p | {"phase": "decode"} if decode else p


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--impl", default=",".join(PEERS), help="of %(default)s; with commas")
    args.add_argument("--phase", choices=["prefill", "decode"], help="both if left out")
    args.add_argument("--sglang", metavar="DIR", help="SGLang's wheel, unpacked")
    args.add_argument("--vllm", metavar="DIR", help="vLLM's wheel, unpacked")
    args.add_argument("--out", required=True)
    args = args.parse_args()
    names = args.impl.split(",")
    for name in names:
        if name not in PEERS:
            raise SystemExit(f"--impl {name}: there are {', '.join(PEERS)}")
    todo = [(b, t, False) for b, t in PREFILL] if args.phase != "decode" else []
    todo += [(b, 1, True) for b in DECODE] if args.phase != "prefill" else []
    versions = {"torch": torch.__version__}
    device = torch.cuda.get_device_name()
    with open(args.out, "w") as out:

        def write(row):
            out.write(json.dumps(row) + "\n")
            out.flush()

        for name in names:
            try:
                peer = PEERS[name](args)
            except Missing as e:
                print(f"{name}: skipped: {e}", file=sys.stderr)
                write({"impl": name, "skipped": str(e)})
                continue
            import triton

            versions["triton"] = triton.__version__
            facts = {"impl": name, "versions": versions | peer.versions, "device": device}
            for b, t, decode in todo:
                if decode and peer.decode is None:
                    continue
                row = facts | {"problem": problem(b, t, decode)}
                try:
                    with torch.no_grad():
                        row |= case(peer, b, t, decode)
                except Exception as e:  # a shape that an implementation refuses is a row too
                    row["error"] = f"{type(e).__name__}: {e}".splitlines()[0][:200]
                write(row)
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
