#!/usr/bin/env python3
"""Speed of a PEFT LoRA fine-tune on the CPU, in the same shapes as `graft bench train`.

A step is what a trainer does: forward, loss over the trained tokens, backward, clip at 1.0, AdamW, zero gradients. The model has
random weights of the given config (speed does not depend on them). One JSON object on standard output: per-step seconds, tokens/s
(real tokens, median over the timed steps), steps/s, peak resident size of the process.

    .venv-interop/bin/python bench/peers/finetune.py --config bench/shapes/qwen2.5-0.5b.json --dtype f32 --steps 3
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", help="config.json of the shape; weights are random")
    source.add_argument("--model", help="model folder")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="type of base weights and activations")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--targets", default="all-linear", help="all-linear, or names with commas")
    parser.add_argument("--trained", default="all", help="all, or the fraction of tokens with a label")
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warmup", type=int, default=1, help="steps before the clock starts")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing (less memory, slower)")
    parser.add_argument("--compile", action="store_true", help="torch.compile (needs a C++ compiler)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    arguments = parse()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before torch starts its pool
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype]
    options = {"dtype": dtype, "attn_implementation": arguments.attention}
    if arguments.config:
        with open(arguments.config, encoding="utf-8") as file:
            fields = json.load(file)
        fields.pop("torch_dtype", None)
        config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
        # Random weights of a large model take long to draw; constants of the right size do for speed, but subnormals and zeros
        # would flatter, so the layers are filled with a cheap uniform.
        with transformers.initialization.no_init_weights():
            model = transformers.AutoModelForCausalLM.from_config(config, **options)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.fill_(1)
                else:
                    parameter.uniform_(-0.03, 0.03)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, **options)
        config = model.config
    model.config.use_cache = False
    targets = arguments.targets if arguments.targets == "all-linear" else arguments.targets.split(",")
    model = get_peft_model(
        model,
        LoraConfig(r=arguments.rank, lora_alpha=arguments.alpha, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM"),
    )
    if arguments.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01)
    run = torch.compile(model) if arguments.compile else model

    shape = (arguments.batch_size, arguments.max_length)
    seconds, cpu_seconds, loss = [], [], float("nan")
    for step in range(arguments.warmup + arguments.steps):
        ids = torch.randint(0, config.vocab_size, shape)
        labels = ids.clone()
        if arguments.trained != "all":  # the last tokens of each row, as a completion
            labels[:, : arguments.max_length - round(float(arguments.trained) * arguments.max_length)] = -100
        begin, cpu_begin = time.perf_counter(), time.process_time()
        output = run(input_ids=ids, labels=labels)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss = output.loss.item()
        if step >= arguments.warmup:
            seconds.append(time.perf_counter() - begin)
            cpu_seconds.append(time.process_time() - cpu_begin)
        print(f"step {step}: {time.perf_counter() - begin:.3f} s, loss {loss:.4f}", file=sys.stderr)
    middle = statistics.median(seconds)
    result = {
        "engine": f"torch {torch.__version__}, transformers {transformers.__version__}, peft",
        "config": arguments.config or arguments.model,
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "batch_size": arguments.batch_size,
        "max_length": arguments.max_length,
        "rank": arguments.rank,
        "targets": arguments.targets,
        "trained": arguments.trained,
        "checkpointing": arguments.checkpointing,
        "compile": arguments.compile,
        "trained_parameters": sum(p.numel() for p in trained),
        "steps": arguments.steps,
        "step_seconds": [round(s, 5) for s in seconds],
        "cpu_step_seconds": [round(s, 5) for s in cpu_seconds],  # of all threads; says whether the machine was shared
        "tokens_per_second": round(arguments.batch_size * arguments.max_length / middle, 2),
        "steps_per_second": round(1 / middle, 4),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss": loss,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
