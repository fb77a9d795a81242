"""Starts players in two processes, names them, and waits to be killed."""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

if __name__ == "__main__":
    import numpy as np
    from test_scaling_search import HOLD, RECORDED, _hpa, _world

    from tools.scaling.playing import Players

    with Players(_world(np.full(600, HOLD)), 2) as players:
        players.play([(RECORDED, _hpa(2, 3))] * 16)
        print(*players._executor._processes, flush=True)
        time.sleep(60)
