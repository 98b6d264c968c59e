"""E/F of a kernel of this repository and of cuDNN, on the same inputs against the same fp64.

    python peers/attention_accuracy.py [--crossover target/release/crossover] [--out accuracy.jsonl]

Prints a Markdown table, a line a problem; --out also writes a JSON object a line with both
verifications. Needs a CUDA device, PyTorch and safetensors.
"""

import argparse
import itertools
import json
import os
import subprocess
import tempfile

import torch

import cudnn_attention

KERNEL = "attention/prefill.sm90a"
SHAPES = ["D=64", "D=128", "D=256", "D=192,Dv=128"]
FAMILIES = ["random", "logits=huge", "logits=sink", "keys=identical"]


def crossover(binary, *args):
    run = subprocess.run([binary, *args], capture_output=True, text=True)
    if run.returncode not in (0, 1) or not run.stdout.strip():
        raise SystemExit(f"crossover {' '.join(args)}: {run.stderr}")
    return run.stdout


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--crossover", default="target/release/crossover")
    args.add_argument("--kernels", help="kernel folder in place of the embedded one")
    args.add_argument("--device", default="cuda:0")
    args.add_argument("--out")
    args = args.parse_args()
    facts = cudnn_attention.versions("CUDNN_ATTENTION")
    print(f"{facts['device']}, torch {facts['torch']}, cuDNN {facts['cudnn']}, {KERNEL}\n")
    print("| problem | inputs | o E/F here | cuDNN | |")
    print("|---|---|---|---|---|")
    log = open(args.out, "w") if args.out else None
    worse = 0
    with tempfile.TemporaryDirectory() as folder:
        source, ours, theirs = (os.path.join(folder, n) for n in ("in", "ours", "theirs"))
        for dtype, shape, causal, family in itertools.product(
            ["bf16", "fp16"], SHAPES, [False, True], FAMILIES
        ):
            problem = f"dtype={dtype},T=2000,Hq=4,Hkv=2,{shape},causal={str(causal).lower()}"
            mask = ["--causal"] if causal else []
            crossover(args.crossover, "inputs", "attention", "-p", problem, "--family", family, "--out", source)
            run = [KERNEL, "--inputs", source, "--out", ours, "--device", args.device, *mask]
            folder_of = ["--kernels", args.kernels] if args.kernels else []
            crossover(args.crossover, *folder_of, "exec", *run)
            held = []
            try:
                cudnn_attention.compute(source, theirs, causal)
                files = [ours, theirs]
            except RuntimeError as e:
                files, why = [ours], str(e).splitlines()[0]
            for outputs in files:
                text = crossover(
                    args.crossover, "verify", "attention", "--inputs", source, "--outputs", outputs,
                    "--family", family, "--all", "--json", *mask,
                )
                held.append(json.loads(text)["verification"])
            ratios = [next(o["error"] / o["floor"] for o in v["outputs"] if o["name"] == "o") for v in held]
            if len(ratios) == 2:
                # Equal to within what another order of the same roundings makes.
                verdict = "better" if ratios[0] < 0.99 * ratios[1] else "same" if ratios[0] <= 1.01 * ratios[1] else "worse"
                worse += verdict == "worse"
                cells = f"{ratios[0]:.3f} | {ratios[1]:.3f} | {verdict}"
            else:
                cells = f"{ratios[0]:.3f} | none | {why[:60]}"
            print(f"| {problem.replace(',', ' ')} | {family} | {cells} |", flush=True)
            if log:
                log.write(json.dumps({**facts, "kernel": KERNEL, "problem": problem, "family": family, "here": held[0], "cudnn": held[1] if len(held) == 2 else None}) + "\n")
    print(f"\n{worse} problems where cuDNN is closer to fp64 by more than 1%.")


if __name__ == "__main__":
    main()
