"""Weights of the two regressions, written by ``python -m evaluation fit``; not to be edited by hand."""

from mcp_servers.quality_eval.statistics.regression import Head, Term

PLACE = Head(
    offset=2.3173,
    terms={
        "beyond": Term(0.0, 0.2, 0.0, 0.0),
        "depth": Term(0.15, 0.1, 0.0, -0.8791),
        "log_area": Term(-4.5, 2.0, -0.3011, 0.0),
        "log_length": Term(-1.2, 1.0, -0.7307, -0.0246),
    },
)

LOOK = Head(
    offset=4.1961,
    terms={
        "log_shape": Term(0.2904, 0.4815, -0.0316, -0.1202),
        "neighbours": Term(0.1283, 0.4257, 0.0, -2.5605),
        "unevenness": Term(-0.072, 0.2784, -0.0299, -0.0587),
        "haar_noise": Term(0.5535, 0.699, -0.2737, -0.5704),
        "border_step": Term(0.2145, 1.2193, 0.0, -0.8425),
        "inner_step": Term(0.1822, 0.8576, -0.1701, -0.4621),
        "step_sharpness": Term(1.1314, 0.3536, -0.0956, -0.2304),
        "raggedness": Term(1.5255, 0.9711, -0.2186, -1.5907),
        "colour_distance": Term(3.366, 1.3249, 0.0, -0.036),
        "hue_distance": Term(0.0219, 1.3762, -0.1978, 0.0),
        "log_peak": Term(4.9675, 0.7715, 0.0, -0.2237),
    },
)
