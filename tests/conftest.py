"""How properties run: the same examples every time, and no limit on the time of one (machines are shared and noisy).

`HYPOTHESIS_PROFILE=explore pytest tests` draws new and more examples.
"""

import os

from hypothesis import settings

settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
