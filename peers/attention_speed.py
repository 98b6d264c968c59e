"""Other people's attention at the problems of a record file, timed as docs/method.md has it.

    crossover run sweeps/peer-shapes.toml --device cuda:0 --out out
    python peers/attention_speed.py out/records.jsonl --out peers.jsonl

Every dense attention problem of the records (no window, soft cap or packed sequences) once an
implementation: twice the L2 overwritten before each sample, a spin that hides the host, events around
the call; warm-up until the medians of two spans of 50 ms agree within 1%, then at least 10 samples and
100 ms until half of the median's 95% interval is below 0.5%, 2 s at most. Inputs are standard normal as
the family `random` is. Rows drawn from a few heads are held against fp64: E/F as crossover has it.
Writes an object a line: impl, versions, problem, ms, ci_ms, samples, settled, hidden (no sample has the
host's time in it), e_over_f, or the error.
"""

import argparse
import json
import math
import statistics
import time

import torch
from cudnn_attention import BACKENDS
from torch.nn.attention import SDPBackend, sdpa_kernel

TORCH = {"cudnn": BACKENDS[0], "fa2": BACKENDS[1]}
LONGEST_HOLD = 10_000_000  # cycles


def implementation(name):
    """A function of q, k, v [B,T,H,D] and causal, and what its numbers depend on."""
    if name == "flash-attn-4":
        from importlib.metadata import version

        from flash_attn.cute import flash_attn_func

        def call(q, k, v, causal):
            return flash_attn_func(q, k, v, causal=causal)[0]

        return call, {"flash-attn-4": version("flash-attn-4")}

    def call(q, k, v, causal):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        with sdpa_kernel(getattr(SDPBackend, TORCH[name])):
            o = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
            )
        return o.transpose(1, 2)

    return call, {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}


def problems(path):
    """The distinct dense attention problems of a record file, in order."""
    seen = {}
    with open(path) as lines:
        for line in lines:
            try:
                p = json.loads(line)["problem"]
            except ValueError:
                continue  # a torn last line
            plain = not (p.get("window") or p.get("softcap") or p.get("lens"))
            if p["op"] == "attention" and plain and (p["tq"] == p["tkv"] or not p["causal"]):
                seen.setdefault(json.dumps(p, sort_keys=True), p)
    return list(seen.values())


def error(o, q, k, v, causal, scale):
    """E/F of 64 rows in each of up to 4 heads of the last sequence."""
    tq, tkv, group = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    rows = torch.linspace(0, tq - 1, 64, device=q.device).long()
    err = floor = 0.0
    for h in range(0, q.shape[2], max(1, q.shape[2] // 4)):
        s = q[-1, rows, h].double() @ k[-1, :, h // group].double().T * scale
        if causal:
            s.masked_fill_(torch.arange(tkv, device=q.device) > rows[:, None], -math.inf)
        ref = s.softmax(-1) @ v[-1, :, h // group].double()
        err += (o[-1, rows, h].double() - ref).square().sum().item()
        floor += (ref.to(o.dtype).double() - ref).square().sum().item()
    return math.sqrt(err / floor)


def interval(times):
    """Median and its 95% interval from order statistics (docs/method.md)."""
    n, s = len(times), sorted(times)
    if n < 1000:
        r, term = 0, 0.5**n
        below = term
        while below <= 0.025:
            term *= (n - r) / (r + 1)
            r += 1
            below += term
    else:
        r = int(n / 2 - 0.98 * math.sqrt(n))
    r = max(r, 1)
    return statistics.median(s), (s[r - 1], s[n - r])


def measure(call, flushed=0):
    """Median, interval, samples, whether it settled and the host stayed hidden; milliseconds."""
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    flush = torch.empty(max(2 * l2, 64 << 20, flushed), dtype=torch.int8, device="cuda")
    hold, missed = 200_000, 0

    def sample():
        nonlocal hold, missed
        for _ in range(8):
            flush.fill_(1)
            torch.cuda._sleep(hold)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            hidden = not start.query()
            end.synchronize()
            if hidden:
                break
            hold = min(2 * hold, LONGEST_HOLD)  # the spin ended before the call was queued
        else:
            missed += 1
        return start.elapsed_time(end)

    def now():
        return time.perf_counter()

    begin, recent, settled = now(), [], False
    while not settled and now() - begin < 1:
        recent.append((now(), sample()))
        at = recent[-1][0]
        last = [x for t, x in recent if t > at - 0.05]
        before = [x for t, x in recent if at - 0.1 < t <= at - 0.05]
        if at - begin > 0.1 and len(recent) > 6:
            if min(len(last), len(before)) < 3:
                last, before = ([x for _, x in recent[a:b]] for a, b in ((-3, None), (-6, -3)))
            a, b = statistics.median(last), statistics.median(before)
            settled = abs(a - b) <= 0.01 * max(a, b)
    begin, times = now(), []
    while True:
        times.append(sample())
        spent = now() - begin
        # Not after each: the GPU would rest while the host counts.
        if len(times) < 10 or spent < 0.1 or len(times) % 8 and spent < 2:
            continue
        median, (low, high) = interval(times)
        if (high - low) / 2 < 0.005 * median or spent > 2:
            return {
                "ms": median,
                "ci_ms": [low, high],
                "samples": len(times),
                "settled": settled,
                "hidden": missed == 0,
            }


def case(call, p):
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[p["dtype"]]
    torch.manual_seed(0)

    def draw(t, h, d):
        return torch.randn(p["b"], t, h, d, device="cuda", dtype=torch.float32).to(dtype)

    q, k = draw(p["tq"], p["hq"], p["d"]), draw(p["tkv"], p["hkv"], p["d"])
    v = draw(p["tkv"], p["hkv"], p.get("dv") or p["d"])
    with torch.no_grad():
        o = call(q, k, v, p["causal"])
        e_over_f = error(o, q, k, v, p["causal"], p["d"] ** -0.5)
        return measure(lambda: call(q, k, v, p["causal"])) | {"e_over_f": e_over_f}


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("records", help="records.jsonl of a run")
    args.add_argument("--impl", default="cudnn", help="of cudnn, fa2, flash-attn-4; with commas")
    args.add_argument("--out", required=True)
    args = args.parse_args()
    names = args.impl.split(",")
    for name in names:
        if name not in [*TORCH, "flash-attn-4"]:
            raise SystemExit(f"--impl {name}: there are cudnn, fa2, flash-attn-4")
    todo = problems(args.records)
    if not todo:
        raise SystemExit(f"{args.records}: no dense attention problem in it")
    device = torch.cuda.get_device_name()
    with open(args.out, "w") as out:
        for name in names:
            call, versions = implementation(name)
            for p in todo:
                row = {"impl": name, "versions": versions, "device": device, "problem": p}
                try:
                    row |= case(call, p)
                except Exception as e:  # a shape that an implementation refuses is a row too
                    row["error"] = str(e).splitlines()[0][:200]
                out.write(json.dumps(row) + "\n")
                out.flush()
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
