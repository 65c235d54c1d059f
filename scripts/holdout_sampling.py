"""Samplers of holdout.py: random settings of `dump --want sampling` against the processors of transformers."""

import torch
import transformers
from transformers.generation import logits_process as warpers


def sampling_case(bench, folder, seed):
    generator = torch.Generator().manual_seed(seed)
    vocab = [97, 513, 1031, 8193][seed % 4]
    logits = torch.randn(vocab, generator=generator) * (1 + seed % 5)
    if seed % 3 == 0:
        logits = (logits * 4).round() / 4  # ties
    history = torch.randint(0, vocab, (1 + 13 * (seed % 4),), generator=generator)
    draw = lambda low, high: low + (high - low) * torch.rand(1, generator=generator).item()  # noqa: E731
    chosen = [i for i in range(8) if torch.rand(1, generator=generator).item() < 0.45] or [0]
    settings, scores, processors = [], logits.clone()[None], transformers.LogitsProcessorList()
    if 0 in chosen:
        for _ in range(3):
            token, value = int(draw(0, vocab)), round(draw(-5, 5), 2) if draw(0, 1) < 0.7 else float("-inf")
            if str(token) in [s.split("=")[0] for s in settings]:
                continue
            settings += ["--logit-bias", f"{token}={value}"]
            scores[0, token] += value
    penalised = history
    if 7 in chosen and len(history) > 4:
        settings += ["--repeat-last-n", 4]
        penalised = history[-4:]
    if 1 in chosen:
        value = round(draw(0.6, 1.8), 3)
        settings += ["--repetition-penalty", value]
        scores = warpers.RepetitionPenaltyLogitsProcessor(value)(penalised[None], scores)
    if 2 in chosen:
        frequency, presence = round(draw(-1, 1), 3), round(draw(-1, 1), 3)
        settings += [f"--frequency-penalty={frequency}", f"--presence-penalty={presence}"]
        counts = torch.bincount(penalised, minlength=vocab).double()
        scores = (scores.double() - frequency * counts - presence * (counts > 0)).float()
    if 3 in chosen:
        value = round(draw(0.2, 2.5), 3)
        settings += ["--temperature", value]
        processors.append(warpers.TemperatureLogitsWarper(value))
    if 4 in chosen:
        value = 1 + int(draw(0, 60))
        settings += ["--top-k", value]
        processors.append(warpers.TopKLogitsWarper(value))
    if 5 in chosen:
        value = round(draw(0.02, 0.999), 3)
        settings += ["--top-p", value]
        processors.append(warpers.TopPLogitsWarper(value))
    if 6 in chosen:
        value = round(draw(0.0, 0.9), 3)
        settings += ["--min-p", value]
        processors.append(warpers.MinPLogitsWarper(value))
    theirs = torch.log_softmax(processors(history[None], scores)[0].double(), -1)
    ours = bench.dump(folder, {"logits": logits, "history": history}, "sampling", None, *settings)["logprobs"].double()
    case = f"sampling {seed}: {settings}"
    kept, mine = torch.isfinite(theirs), torch.isfinite(ours)
    if seed % 3 == 0:  # among equal logits PyTorch keeps any; the set of values must agree
        kept_values, my_values = theirs[kept].sort().values, ours[mine].sort().values
        if 4 in chosen and len(kept_values) != len(my_values):  # top-k of transformers keeps every tie with the k-th
            return
        bench.close(case, "sampling, with ties", my_values.float(), kept_values.float(), 1e-6)
        return
    bench.check(case, "sampling: candidates differ", (kept != mine).sum().item(), 0.5)
    bench.close(case, "sampling", ours[kept & mine].float(), theirs[kept & mine].float(), 1e-6)
