"""Weights of the two regressions, written by ``python -m evaluation fit``; not to be edited by hand."""

from mcp_servers.quality_eval.statistics.regression import Head, Term

PLACE = Head(
    offset=2.8064,
    terms={
        "beyond": Term(0.0, 0.0822, 0.2971, -0.2197),
        "reach": Term(0.0, 0.0192, -0.0487, 0.0295),
        "depth": Term(0.15, 0.0586, 0.6061, -0.1398),
        "log_area": Term(-4.9203, 1.8377, -0.1435, -0.2535),
        "log_length": Term(-1.1864, 1.1258, -0.5631, -0.5633),
    },
)

LOOK = Head(
    offset=4.2302,
    terms={
        "log_shape": Term(0.2904, 0.4815, -0.2154, -0.3024),
        "neighbours": Term(0.1283, 0.4257, 1.3172, -0.4861),
        "neighbours_in": Term(0.2374, 0.432, -0.2662, 0.2066),
        "log_power": Term(-0.0156, 0.2554, 0.6168, 0.0027),
        "activity": Term(0.7476, 0.8884, 0.3356, 0.3395),
        "calmest": Term(0.8195, 0.8587, -0.5506, 0.2137),
        "unevenness": Term(-0.072, 0.2784, -0.1954, -0.1256),
        "band_0": Term(0.3612, 0.5986, -0.5817, -0.3721),
        "band_1": Term(0.5379, 0.6021, -0.156, 0.4284),
        "band_2": Term(0.5182, 0.419, 0.4479, -0.2502),
        "slope_in": Term(-0.6281, 1.0053, 0.8732, -0.2658),
        "haar_noise": Term(0.5535, 0.699, 0.1085, -0.5717),
        "rgb_noise": Term(0.0, 0.389, 0.1438, -0.2377),
        "weakest_step": Term(1.179, 1.5384, 0.3175, 0.0308),
        "border_step": Term(0.2145, 1.2193, 0.2937, -0.0768),
        "inner_step": Term(0.1822, 0.8576, -0.4036, -0.131),
        "step_sharpness": Term(1.1314, 0.3536, 0.3067, 0.0197),
        "squareness": Term(0.1246, 0.13, -0.0023, -0.0064),
        "raggedness": Term(1.5255, 0.9711, 1.0521, -0.4345),
        "colour_distance": Term(3.366, 1.3249, 0.6438, 0.1671),
        "colour_distance_relative": Term(1.4668, 1.0077, 0.1905, 0.111),
        "hue_distance": Term(0.0219, 1.3762, -0.8138, 0.0402),
        "tones": Term(-0.4032, 1.3249, -0.5156, 0.2272),
        "log_peak": Term(4.9675, 0.7715, 0.3463, -0.209),
        "leftover": Term(0.0, 0.8805, -0.3163, -0.0567),
    },
)
