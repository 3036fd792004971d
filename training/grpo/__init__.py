"""Group-relative policy optimization (GRPO) of the policy, on episodes that it really acts out with tools."""
