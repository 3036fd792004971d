"""What is synthetic defect data worth? Folders of images and masks in, figures with intervals out.

Start at ``compare.py`` (one table: generators x categories); ``generators.py`` makes or reads the training pairs,
``detector.py`` learns from them (the only module that needs torch), ``metrics.py`` judges on real defects.
"""
