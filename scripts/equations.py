#!/usr/bin/env python3
"""Writes docs/equations.md: each formula of the mixture-of-experts transformer with the function that computes it and the test that holds it.

A row whose function or test is gone is an error, so that the map cannot rot.

    scripts/equations.py            writes the page
    scripts/equations.py --check    exits 1 where a function or test is gone, or the page is not what would be written
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/equations.md"

# Formula | what it is | file | function | test. T tokens, H hidden, E experts, K chosen, D head size; dZ is dL/dZ; W is [out, in].
ROWS = """
softmax | p_j = exp(z_j − max z) / Σ exp(z − max z), blocks of 4,096 | graft/kernels/softmax_sums_ref_inl.h | softmax_sums | HeadLoss.MatchesThePlainFormula
SiLU and SwiGLU | silu(a) = a / (1 + e^(−a)); h = silu(gate) ∘ up | graft/kernels/activation.h | swiglu | Swiglu.MatchesTheFormulaAtAnyMagnitude
SwiGLU backward | da = dh ∘ u σ(1 + a(1 − σ)); du = dh ∘ aσ | graft/kernels/activation.h | swiglu_backward | Swiglu.GradientMatchesDifferencesInDouble
exponential | e^x = 2^n e^r, |r| ≤ ln 2 / 2, within 1 ulp | graft/kernels/math_ref_inl.h | exp_chain | Math.ExpAndLogAreWithinOneUlp
matrix product | Y = X Wᵀ, K cut at 512, chains of fused multiply-adds | graft/kernels/gemm.h | matmul_nt | MatmulNt.SameBitsAsContractForEveryShape
product backward, input | dX = dY W | graft/kernels/gemm.h | matmul_nn | MatmulNn.SameBitsAsContractForEveryShape
product backward, weight | dW = dYᵀ X, tokens cut at 512 | graft/kernels/gemm.h | matmul_tn | MatmulTn.SameBitsAsContractForEveryShape
bias backward | db = Σ_t dY_t | graft/kernels/elementwise.h | sum_rows | Elementwise.SameBitsOnEveryCpuLevelAndThreadCount
linear layer and its gradient | Y = X Wᵀ + b with dX, dW, db | graft/graph/ops.h | projections | LoraOps.GradientOfOneAdapterOnSharedTargets
normal sampling | Box–Muller on Philox draws named by (seed, tensor, element) | graft/kernels/random_fill.h | fill_normal | RandomFill.MomentsAndSharesAreThoseOfTheDistributions
initialisation | N(0, 2 / fan_in), a stream per tensor name | graft/models/init.h | init_model | MoeConvergence.BarsOfThreeSeeds
embedding | x_t = W_e[id_t] | graft/kernels/embedding.h | embedding | Embedding.GathersRowsOfEveryForm
embedding backward | dW_e[i] = Σ_{t: id_t = i} dx_t, by a stable sort | graft/kernels/embedding.h | embedding_backward | EmbeddingOp.GradientOfTrainedTable
RMSNorm | r = (mean x² + ε)^(−½); y = γ ∘ x r | graft/kernels/norm.h | rms_norm | RmsNorm.MatchesTheFormulaAndAliasingChangesNothing
RMSNorm backward | dγ = Σ dy ∘ x r; dx = r(γ∘dy) − x (r³/H) Σ γ∘dy∘x | graft/kernels/norm.h | rms_norm_backward | RmsNorm.GradientMatchesDifferencesInDouble
rotary embedding | (a, b) → (a cos − b sin, a sin + b cos), angle = pos · base^(−2i/D); halves or neighbours | graft/kernels/rope.h | rope | Rope.RotatesPairsAndBack
NTK scaling | base' = base · α^(D/(D−2)) | graft/kernels/rope.h | make_rope_table | Rope.NtkStretchesTheLongestWave
rotary backward | rotation by the negative angle | graft/graph/ops.h | rope | RopeOp.Gradient
attention | S = Q Kᵀ / √D, causal; P = softmax S; O = P V; query head h reads head ⌊h/g⌋ | graft/kernels/attention.h | attention | Attention.MatchesTwoPassSoftmax
attention dQ, dK, dV | dS = P ∘ (dO Vᵀ − dO·O)/√D; dQ = dS K; dK = Σ dSᵀ Q; dV = Σ Pᵀ dO | graft/kernels/attention.h | attention_backward | AttentionBackward.MatchesFiniteDifferences
router | p = softmax(x W_rᵀ); the K largest, ties to the lowest index; w = p_k / Σ p | graft/kernels/moe_route.h | route | Route.ChoosesSortsAndRenormalizes
router backward | dp_k = (dw_k − Σ w dw)/s; dz = p ∘ (dp − Σ p dp) | graft/kernels/moe_route.h | route_backward | Route.GradientAgainstDifferences
dispatch | assignments by expert, tokens ascending; with a capacity the first tokens | graft/kernels/moe_route.h | route | Route.CapacityKeepsTheFirstTokens
grouped product | Y_e = X[tokens of e] W_eᵀ, all experts at once | graft/kernels/moe_gemm.h | expert_products | ExpertProducts.AreTheContractBitForBit
expert combine | o_t = Σ_e w_te Expert_e(x_t), e ascending, fused multiply-adds | graft/graph/ops.h | experts | ExpertsOp.Gradient
weights of the combine, backward | dw_tk = do_t · Expert_k(x_t) = h_k · (do W_d) | graft/kernels/moe_gemm.h | expert_weight_gradients | ExpertWeightGradients.DotsAndScales
expert weights, backward | dW_e = Σ_{t of e} dy_t x_tᵀ, rows in blocks of 512 | graft/kernels/moe_gemm.h | expert_gradients | ExpertGradients.AreTheContractBitForBit
shared expert's gate | y = x σ(z) + r; dx = σ dy; dz = σ(1−σ) Σ dy x | graft/kernels/moe_route.h | row_gate | RowGate.SameBitsAndGradient
auxiliary loss | layers: α Σ_l E Σ_e f_e P_e; joint: α E K Σ_e mean_l f mean_l P | graft/graph/ops.h | router_loss | RouterLossOp.GradientAndValue
auxiliary loss, backward | dp_te = α E f_e / T for all e | graft/graph/ops/route.cc | run_loss | RouterLossOp.GradientAndValue
router z-loss | c mean_t lse(z_t)²; dz_te = (2c/T) lse_t p_te | graft/kernels/moe_route.h | route_backward | RouterLossOp.GradientAndValue
cross-entropy | L = (1/n) Σ (lse − z_target), smoothed targets, logits never whole | graft/kernels/loss.h | head_cross_entropy | HeadLoss.MatchesThePlainFormula
cross-entropy gradient | dz = (softmax z − q)/n | graft/kernels/loss.h | head_cross_entropy | HeadLoss.GradientMatchesDifferencesInDouble
tied head | dW_e = scatter of dx + dW_h | graft/models/decoder.h | build_decoder | Decoder.FullTrainingReachesEveryParameter
block order | h = x + Attn(N₁ x); y = h + MoE(N₂ h); whole model against differences | graft/models/decoder.h | build_decoder | Decoder.LossFollowsTheGradientOfEveryFamily
AdamW | θ ← θ − lr (m̂/(√v̂ + ε) + λθ) | graft/kernels/optimizer.h | adamw | AdamW.GoldenValuesInDouble
clipping | N = √Σ g² in f64 over all parameters; g ← g c/N where N > c | graft/kernels/optimizer.h | sum_squares | SumSquares.IsExactWhereItCanBeAndPassesNanOn
warm-up and cosine | lr t/W; min + ½(lr − min)(1 + cos π p) | graft/train/schedule.h | learning_rate | Schedule.FromOneGolden
temperature, top-k | softmax(z/T) of the k largest | graft/infer/sampler.h | process_logits | Sampler.EachStepAlone
top-p | keep until Σ p ≥ top_p, at least one | graft/infer/sampler.h | process_logits | Sampler.AllStepsInTheirOrder
draw | inverse CDF; 64-bit LCG of the reference, or Philox | graft/infer/sampler.h | draw | Sampler.Lcg64DrawsAreThePublicGenerators
LoRA dA, dB, dX | y = x Wᵀ + s (x Aᵀ) Bᵀ; dB = s dyᵀ(x Aᵀ); dA = s (dy B)ᵀ x | graft/graph/ops.h | lora_down | LoraOps.GradientOfSeveralSlots
LoRA on experts | the same for each expert's rows | graft/graph/ops.h | experts | Decoder.LossFollowsTheGradientOfEveryFamily
merge | W' = W + s B A | graft/models/merge.h | merge | Experts.MergedAndUnmergedAgree
one expert of one | E = K = 1 is the dense layer, bit for bit | graft/models/decoder_builder.h | expert_block | Experts.OneExpertOfOneIsTheDenseModel
""".strip().splitlines()


def main() -> int:
    tests = set()
    for folder in ("graft", "tests"):
        for path in (ROOT / folder).rglob("*_test.cc"):
            tests.update(f"{suite}.{name}" for suite, name in re.findall(r"^TEST\((\w+), (\w+)\)", path.read_text(), re.M))
    lines = [
        "# Equations and code",
        "",
        "Each formula of the transformer with experts (and of the dense one: the layers are the same), the function that computes it, and the test that would fail without it. Written by",
        "`scripts/equations.py`, which refuses a row whose function or test is gone. T tokens, H hidden, E experts, K chosen, D head size; dZ is dL/dZ.",
        "",
        "| | equation | function | test |",
        "| --- | --- | --- | --- |",
    ]
    faults = []
    for row in ROWS:
        # A formula may hold |x|: the row is read from both ends.
        what, rest = row.split(" | ", 1)
        formula, file, function, test = rest.rsplit(" | ", 3)
        path = ROOT / file
        if not path.exists() or not re.search(rf"\b{function}\s*(<\w+>)?\(", path.read_text()):
            faults.append(f"{what}: {file} has no function {function}")
        if test not in tests:
            faults.append(f"{what}: there is no test {test}")
        lines.append(f"| {what} | {formula} | `{function}` in [{file}](../{file}) | `{test}` |".replace("|r|", "\\|r\\|"))
    page = "\n".join(lines) + "\n"
    if len(ROWS) < 32:
        faults.append(f"{len(ROWS)} rows, expected 32 or more")
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != page:
            faults.append("docs/equations.md is not what scripts/equations.py writes: run it")
    elif not faults:
        PAGE.write_text(page)
    for fault in faults:
        print(f"equations: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
