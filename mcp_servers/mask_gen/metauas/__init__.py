"""Mask generation with MetaUAS: a network that was taught to segment what changed between two photos.

Gao, "MetaUAS: Universal Anomaly Segmentation with One-Prompt Meta-Learning", NeurIPS 2024. The original photo is the
prompt, the edited one the query; a frozen EfficientNet-B4 describes both (efficientnet.py), the prompt's features are
aligned softly to the query's at the three deepest stages (alignment.py), and a U-Net decoder (decoder.py) turns both
into one probability per pixel (network.py). The published weights are loaded from a local file (checkpoint.py);
backend.py is the way in. Only the modules that define or run the network import torch.
"""
