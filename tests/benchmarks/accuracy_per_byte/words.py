"""Words of the page: its prose. Every number here is of seed 99, which is not reported."""

from __future__ import annotations

from methods import FEEDBACK

_FADING = (
    f"a residual fades by {FEEDBACK.decay:g} for every round in which its client does not take part, and its norm is "
    f"held to {FEEDBACK.max_norm:g} times that of the new update"
)

METHODS_IN_WORDS = (
    "- float32: four bytes a parameter in our envelope.",
    "- QSGD ternary: one level, unbiased, each tensor scaled by its largest magnitude; our coder and envelope.",
    "- STC 1%: the largest hundredth of all values at their mean magnitude, with its own undamped error feedback; the "
    "shorter of the paper's Golomb code without any envelope and our coder in our envelope.",
    "- ours: the rate controller's least error within the rate, envelope included. With feedback, "
    f"{_FADING}. Unbiased: stochastic rounding with the finest step that the rate allows, no feedback; at 0.03 bit its "
    "variance makes training diverge, so it is left out there.",
)

WHY_IT_TRAILS = (
    "A coarse rate costs rounds. On seed 99, at 0.1 bit, least error with feedback reaches after 100 rounds (86.5 %) "
    "what float32 reached after 60, and float32 is still improving (87.7 % after 100). Twice the local steps improve "
    "both and keep the gap (87.6 and 88.9 %); half of them widen it (85.0 and 86.4 % after 120 rounds): short updates "
    "are mostly noise and compress worse, at an NMSE of 0.72 instead of 0.65. The kind of feedback is not the limit: "
    "undamped residuals, whatever their age and norm, gave 86.4 %. Least error without feedback loses for good what "
    "it leaves out. The unbiased mode loses nothing on average, but the energy of its error is several times that of "
    "the update: only from 0.3 bit on is it the best of ours. Least error is not least loss of accuracy either: "
    "STC's payloads have a larger error than ours with feedback, and reach the same accuracy in fewer bytes (the two "
    "are within each other's standard errors)."
)

HOW_CHOSEN = (
    "On seed 99 alone; 100 rounds are what a sweep has time for. By float32: in 60 rounds the rates 0.02 and 0.05 "
    "reached 84.1 and 85.7 %; in 100 rounds a cosine that ends at 0, 2 and 10 % of the first rate reached 87.3, "
    "87.5 and 87.7 %. An end at 0 would also be unfair to STC: in 60 rounds its undamped residuals then grew to 233 "
    "norms of the update. The running mean is measured because single models vary, float32's by up to 3 points from "
    "one round to the next.",
    "",
    "Tried at 0.1 bit and left out because there was no gain: the last global update as the coder's reference changed "
    "the NMSE by less than 0.02 and does not predict values (its cosine with what a client next has to send was "
    "between -0.26 and 0.03, since label skew makes successive updates diverge); and a running mean of each client's "
    "own decoded updates, kept at both ends, with only the difference coded (cosines of 0.3 to 0.6): 84.1 % in 60 "
    "rounds, 84.8 % with feedback as well, where feedback alone gave 84.7 % on a cosine that ends at 0.",
)
