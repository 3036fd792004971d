"""Learning from recorded sessions: trajectories from real defects, rewards, supervised fine-tuning.

Read ``trajectories.py`` (Algorithm 2: sessions built from real defects), ``rewards.py`` (what an episode earned, from
its ``trace.py``), ``data.py`` (sessions to examples), then ``sft.py``. The chat template and the episode loop are the
agent's own.
"""
