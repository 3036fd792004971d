"""Weights of the two regressions, written by ``python -m evaluation fit``; not to be edited by hand."""

from mcp_servers.quality_eval.statistics.regression import Head, Term

PLACE = Head(
    offset=2.8065,
    terms={
        "beyond": Term(0.0, 0.0822, 0.311, -0.2273),
        "reach": Term(0.0, 0.0192, -0.0485, 0.0275),
        "depth": Term(0.15, 0.0586, 0.6275, -0.1385),
        "log_area": Term(-4.9203, 1.8377, -0.1596, -0.2551),
        "log_length": Term(-1.1864, 1.1258, -0.5701, -0.5568),
    },
)

LOOK = Head(
    offset=4.1311,
    terms={
        "log_shape": Term(0.2904, 0.4815, -0.1706, -0.3373),
        "neighbours": Term(0.1283, 0.4257, 1.2311, -0.5088),
        "neighbours_in": Term(0.2374, 0.432, -0.4191, 0.2805),
        "log_power": Term(-0.0156, 0.2554, 0.4741, 0.014),
        "activity": Term(0.7476, 0.8884, 0.324, 0.3289),
        "calmest": Term(0.8195, 0.8587, -0.4564, 0.2298),
        "unevenness": Term(-0.072, 0.2784, -0.1008, -0.1242),
        "band_0": Term(0.3612, 0.5986, -0.5784, -0.3649),
        "band_1": Term(0.5379, 0.6021, -0.2315, 0.4612),
        "band_2": Term(0.5182, 0.419, 0.4003, -0.2461),
        "slope_in": Term(-0.6281, 1.0053, 0.784, -0.3128),
        "haar_noise": Term(0.5535, 0.699, 0.1313, -0.5772),
        "rgb_noise": Term(0.0, 0.389, 0.1235, -0.2274),
        "weakest_step": Term(1.179, 1.5384, 0.4061, -0.0093),
        "border_step": Term(0.2145, 1.2193, 0.3578, -0.109),
        "inner_step": Term(0.1822, 0.8576, -0.4018, -0.1489),
        "step_sharpness": Term(1.1314, 0.3536, 0.2992, 0.0157),
        "squareness": Term(0.1246, 0.13, -0.0431, 0.049),
        "raggedness": Term(1.5255, 0.9711, 1.2443, -0.4756),
        "colour_distance": Term(3.366, 1.3249, 0.6948, 0.2397),
        "colour_distance_relative": Term(1.4668, 1.0077, 0.1645, 0.1629),
        "hue_distance": Term(0.0219, 1.3762, -0.7918, 0.0339),
        "tones": Term(-0.4032, 1.3249, -0.5344, 0.2196),
        "log_peak": Term(4.9675, 0.7715, 0.3128, -0.1486),
        "leftover": Term(0.0, 0.8805, -0.3011, -0.0813),
    },
)
