"""What a soak has measured: series over time, and whether they grow."""

import statistics

# Beside the share of itself by which a series may differ, as the hour of a machine is not even.
_SLACK = {"_kb": 256, "": 1}
# What may grow, and depends on the machine.
_RATE = "spawns_per_second"
# As good as none: a party that had no process most of the time has no means either.
_FEWEST = 4


def _slack(name):
    return _SLACK["_kb" if name.endswith("_kb") else ""]


class Series:
    """One number over time; None where there was none at a moment."""

    def __init__(self, party, metric, values):
        self.party, self.metric, self.values = party, metric, values

    def _quartiles(self, number):
        """The quartiles of the values in a quarter of the time, 1 to 4; None: there is too little to tell."""
        count = len(self.values)
        known = [value for value in self.values[count * (number - 1) // 4:count * number // 4] if value is not None]
        return statistics.quantiles(known) if len(known) >= _FEWEST else None

    def marks(self):
        """The first, a middle and the last value."""
        known = [value for value in self.values if value is not None]
        return [known[0], known[len(known) // 2], known[-1]] if known else [None] * 3

    def medians(self):
        """Of the second and of the last quarter: in the first, pools and caches fill."""
        return tuple(quartiles and quartiles[1] for quartiles in (self._quartiles(2), self._quartiles(4)))

    def verdict(self, tolerance):
        """"grows", "level", or "-": there is too little to tell, or it may grow. tolerance: a share of the earlier
        median. What goes up and down within a quarter by as much as from one to the other does not grow; what grows
        evenly does so by a fourth of that."""
        before, after = self._quartiles(2), self._quartiles(4)
        if before is None or after is None or self.metric == _RATE:
            return "-"
        spread = max(upper - lower for lower, _, upper in (before, after))
        most = max(_slack(self.metric), tolerance * before[1], spread)
        return "grows" if after[1] - before[1] > most else "level"


def from_samples(samples):
    """samples: one dictionary {(party, metric): number} for each moment."""
    names = list(dict.fromkeys(name for sample in samples for name in sample))
    parties = list(dict.fromkeys(party for party, _ in names))
    sides = [party for party in parties if "'" not in party]
    names.sort(key=lambda name: (sides.index(name[0].partition("'")[0]), parties.index(name[0])))
    return [Series(party, metric, [sample.get((party, metric)) for sample in samples]) for party, metric in names]
