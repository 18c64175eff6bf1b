"""Local rules in plain Python, eager and slow: every trace is a sum over the spikes that were. Imports no kernel.

Units are leaky integrate-and-fire with a soft reset; a projection is a list of synapses ``(pre, post, key)``, and
``key`` says which weight that is, so that a convolution's kernel is shared by giving the same key.
"""

import heapq
import itertools
import math

import numpy as np

GAUSS = np.polynomial.legendre.leggauss(10)


class Way:
    """One projection."""

    def __init__(
        self,
        source,
        target,
        synapses,
        weights,
        rule=None,
        terminal=None,
        delay_us=0,
        chunk_of=None,
        fade=None,
        surround=None,
    ):
        self.source, self.target, self.delay_us = source, target, delay_us
        self.weights = dict(weights)
        self.rule, self.terminal, self.fade = rule, terminal, fade
        self.surround, self.seen = surround, []  # (width, channels, Surround); (time, row, column)
        self.by_pre, self.by_post = {}, {}
        for pre, post, key in synapses:
            self.by_pre.setdefault(pre, []).append((post, key))
            self.by_post.setdefault(post, []).append((pre, key))
        self.chunk_of = chunk_of or (lambda post: 0)
        self.pre_spikes, self.post_spikes = {}, {}
        self.fast = dict.fromkeys(self.weights, 0.0)
        self.fast_us = dict.fromkeys(self.weights, 0)
        self.terminals = {}
        self.bcm = {}  # post: (theta, y) at time


def trace(times, t, tau, nearest=False):
    if nearest:
        return math.exp(-(t - times[-1]) / tau) if times else 0.0
    return sum(math.exp(-(t - s) / tau) for s in times)


class Net:
    """A network of populations in the order in which they fire; ``sizes``: units by name."""

    def __init__(self, sizes, taus, theta, ways, phase_us=0):
        self.names = list(sizes)
        self.v = {p: [0.0] * n for p, n in sizes.items()}
        self.t = {p: [0] * n for p, n in sizes.items()}
        self.taus, self.ways = taus, ways
        self.theta = {p: [theta[p]] * n for p, n in sizes.items()}
        self.heap, self.sequence = [], itertools.count()
        self.spikes = []
        self.phase_us, self.end_us, self.owed = phase_us, None, {}
        self.cycles = []  # when it is due next, the period, what to do

    def run(self, items, until_us, amplitudes=()):
        for (t, unit), strength in itertools.zip_longest(items, amplitudes, fillvalue=1.0):
            if self.end_us is None:  # time begins with the first item
                self.begin_us, self.end_us = t, t + self.phase_us if self.phase_us else math.inf
                for cycle in self.cycles:
                    cycle[0] = t + cycle[1]
            self.happen(t)
            for way in self.ways:
                if way.source == "input" and way.delay_us:
                    heapq.heappush(self.heap, (t + way.delay_us, next(self.sequence), way, unit))
            self.cascade(t, {"input": [unit]}, None, strength)
        self.happen(until_us)

    def happen(self, until_us):
        while True:
            next_us = min(self.heap[0][0] if self.heap else math.inf, self.end_us)
            due = [cycle for cycle in self.cycles if cycle[0] < min(next_us, until_us)]
            if due:
                first = min(due, key=lambda cycle: cycle[0])
                first[2](first[0])
                first[0] += first[1]
                continue
            if next_us > until_us:
                return
            if not self.heap or self.end_us <= self.heap[0][0]:
                t, self.end_us = self.end_us, self.end_us + self.phase_us
                self.end_phase(t)
                continue
            t, _, way, unit = heapq.heappop(self.heap)
            self.cascade(t, {}, (way, unit))

    def end_phase(self, t):
        """Let what is owed change hebb by the potentials of the phase, then fire, then deliver."""
        for (_, pre), (way, amplitude) in self.owed.items():
            rule, v, theta = way.rule, self.v[way.target], self.theta[way.target]
            row = way.by_pre.get(pre, [])
            ys = [v[post] / theta[post] - rule.sliding_threshold for post, _ in row]
            total = sum(math.exp(min(y, 300)) for y in ys)
            for (_, key), y in zip(row, ys, strict=True):
                self.faded(way, key, t, rule.tau_hebb_us)
                self.hebb_change(way, rule, pre, key, y, total, amplitude)
        self.owed = {}
        fired = {}
        for p in self.names:
            for post in range(len(self.v[p])):
                self.v[p][post] *= math.exp(-(t - self.phase_us - self.t[p][post]) / self.taus[p])
                self.t[p][post] = t - self.phase_us
                if self.v[p][post] > self.theta[p][post]:
                    fired.setdefault(p, []).append(post)
                    self.spike(p, post, t)
        self.cascade(t, fired, None)

    def cascade(self, t, fired, arriving, strength=1.0):
        for p in self.names:
            mine = fired.setdefault(p, [])
            if arriving and arriving[0].target == p:
                mine += self.deliver(arriving[0], arriving[1], t)
            for way in self.ways:
                if way.target == p and not way.delay_us:
                    for unit in list(fired.get(way.source, [])):
                        mine += self.deliver(way, unit, t, strength if way.source == "input" else 1.0)

    def backing(self, way, pre, t):
        width, channels, it = way.surround
        row, column = divmod(pre // channels, width)
        p = 1.0 + sum(math.exp(-(t - s) / it.tau_pool_us) for s, _, _ in way.seen)
        usual = it.rate_hz * it.tau_pool_us * 1e-6
        begin = way.seen[0][0] if way.seen else t
        busy = (p + usual * math.exp(-(t - begin) / it.tau_pool_us)) / usual if it.rate_hz else 1.0
        near = [s for s, y, x in way.seen if 0 < max(abs(y - row), abs(x - column)) <= it.reach]
        x = sum(math.exp(-(t - s) / it.tau_support_us) for s in near) + it.support_given
        way.seen.append((t, row, column))
        return x / (x + it.support_half * busy)

    def amplitude(self, way, pre, t):
        if way.terminal is None:
            return 1.0
        it = way.terminal
        r, f, last = way.terminals.get(pre, (1.0, it.f_rest, t))
        r = 1 - (1 - r) * math.exp(-(t - last) / it.tau_rec_us)
        f = it.f_rest + (f - it.f_rest) * math.exp(-(t - last) / it.tau_fac_us)
        way.terminals[pre] = (r * (1 - it.depletion), f + (1 - f) * it.f_step, t)
        return r * f

    def faded(self, way, key, t, tau):
        way.fast[key] *= math.exp(-(t - way.fast_us[key]) / tau)
        way.fast_us[key] = t
        return way.fast[key]

    def deliver(self, way, pre, t, strength=1.0):
        p, rule, v = way.target, way.rule, self.v[way.target]
        now = self.end_us - self.phase_us if self.phase_us else t
        amplitude = strength * self.amplitude(way, pre, t) * (self.backing(way, pre, t) if way.surround else 1.0)
        if way.fade is not None:
            amplitude *= math.exp(-max(now - self.begin_us - way.fade.onset_us, 0) / way.fade.tau_us)
        name = type(rule).__name__
        x_2 = trace(way.pre_spikes.get(pre, []), t, rule.tau_x_us) if name == "TripletSTDP" else 0.0
        fired = []
        for _, group in itertools.groupby(way.by_pre.get(pre, []), key=lambda it: way.chunk_of(it[0])):
            chunk = list(group)
            for post, key in chunk:
                v[post] *= math.exp(-(now - self.t[p][post]) / self.taus[p])
                self.t[p][post] = now
                w = way.weights[key]
                if name == "Hebbian":
                    hebb = self.faded(way, key, now, rule.tau_hebb_us)
                    if rule.mixed == "add":
                        w = w + rule.mixing * hebb
                    elif rule.mixed == "blend":
                        w = rule.mixing[key] * w + (1 - rule.mixing[key]) * hebb
                    else:
                        w = rule.mask[key] * w + rule.mixing * (1 - rule.mask[key]) * hebb
                v[post] += amplitude * w
            ys = [v[post] / self.theta[p][post] - getattr(rule, "sliding_threshold", 0.0) for post, _ in chunk]
            total = sum(math.exp(min(y, 300)) for y in ys)
            for (post, key), y in zip(chunk, ys, strict=True):
                self.pre_change(way, rule, name, pre, post, key, t, x_2, y, total, amplitude)
            if self.phase_us:
                continue
            for post, _ in chunk:
                if v[post] > self.theta[p][post]:
                    fired.append(post)
        way.pre_spikes.setdefault(pre, []).append(t)
        if self.phase_us and name == "Hebbian":
            before = self.owed.get((id(way), pre), (way, 0.0))[1]
            self.owed[id(way), pre] = (way, before + amplitude)
        for post in fired:
            self.spike(p, post, t)
        return fired

    def spike(self, p, post, t):
        self.v[p][post] -= self.theta[p][post]
        self.spikes.append((t, p, post))
        for other in self.ways:
            if other.target == p and other.rule is not None:
                self.post_change(other, post, t)
        for other in self.ways:
            if other.source == p and other.delay_us:
                heapq.heappush(self.heap, (t + other.delay_us, next(self.sequence), other, post))

    def pre_change(self, way, rule, name, pre, post, key, t, x_2, y, total, amplitude):
        w, mine = way.weights, way.post_spikes.get(post, [])
        if name == "PairSTDP":
            w[key] = max(w[key] - rule.a_minus * trace(mine, t, rule.tau_minus_us, rule.nearest), rule.w_min)
        elif name == "TripletSTDP":
            gain = rule.a2_minus + rule.a3_minus * x_2
            w[key] = max(w[key] - gain * trace(mine, t, rule.tau_minus_us), rule.w_min)
        elif name == "BCM":
            theta, last = way.bcm.get(post, (0.0, t))
            theta, value = self.slide(rule, mine, theta, last, t)
            way.bcm[post] = (theta, t)
            w[key] = min(max(w[key] + rule.rate * value * (value - theta), rule.w_min), rule.w_max)
        elif name == "RewardSTDP":
            self.faded(way, key, t, rule.tau_eligibility_us)
            way.fast[key] -= rule.a_minus * trace(mine, t, rule.tau_minus_us)
        elif name == "Hebbian" and not self.phase_us:
            self.hebb_change(way, rule, pre, key, y, total, amplitude)

    def hebb_change(self, way, rule, pre, key, y, total, amplitude):
        z = {"tanh": math.tanh(y), "linear": y, "softmax": math.exp(min(y, 300)) / total}[rule.post]
        hebb = way.fast[key] + amplitude * rule.local_rate * z
        way.fast[key] = min(max(hebb, -rule.hebb_max), rule.hebb_max)

    def slide(self, rule, mine, theta, last, t):
        """Integrate the sliding threshold numerically; nothing fires between ``last`` and ``t``."""
        while last < t:
            until = min(t, last + rule.tau_post_us)
            half = (until - last) / 2
            theta *= math.exp(-2 * half / rule.tau_theta_us)
            for place, share in zip(*GAUSS, strict=True):
                s = last + half * (1 + place)
                y = trace(mine, s, rule.tau_post_us)
                theta += share * half * y * y * math.exp(-(until - s) / rule.tau_theta_us) / rule.tau_theta_us
            last = until
        return theta, trace(mine, t, rule.tau_post_us)

    def post_change(self, way, post, t):
        rule, name, w = way.rule, type(way.rule).__name__, way.weights
        mine = way.post_spikes.setdefault(post, [])
        if name == "BCM":
            theta, last = way.bcm.get(post, (0.0, t))
            way.bcm[post] = (self.slide(rule, mine, theta, last, t)[0], t)
        slow = trace(mine, t, rule.tau_y_us) if name == "TripletSTDP" else 0.0
        mine.append(t)
        for pre, key in way.by_post.get(post, []):
            times = way.pre_spikes.get(pre, [])
            if name == "PairSTDP":
                w[key] = min(w[key] + rule.a_plus * trace(times, t, rule.tau_plus_us, rule.nearest), rule.w_max)
            elif name == "TripletSTDP":
                gain = rule.a2_plus + rule.a3_plus * slow
                w[key] = min(w[key] + gain * trace(times, t, rule.tau_plus_us), rule.w_max)
            elif name == "Oja":
                y = trace(mine, t, rule.tau_post_us)
                w[key] += rule.rate * (trace(times, t, rule.tau_pre_us) - y * w[key])
            elif name == "RewardSTDP":
                self.faded(way, key, t, rule.tau_eligibility_us)
                way.fast[key] += rule.a_plus * trace(times, t, rule.tau_plus_us)

    def reward(self, value, t):
        for way in self.ways:
            if type(way.rule).__name__ == "RewardSTDP":
                for key in way.weights:
                    e = self.faded(way, key, t, way.rule.tau_eligibility_us)
                    changed = way.weights[key] + way.rule.rate * value * e
                    way.weights[key] = min(max(changed, way.rule.w_min), way.rule.w_max)

    def signal(self, p, error, t):
        for way in self.ways:
            if way.target == p and type(way.rule).__name__ in ("ErrorModulated", "Decolle"):
                rule = way.rule
                v = [v * math.exp(-(t - s) / self.taus[p]) for v, s in zip(self.v[p], self.t[p], strict=True)]
                for post, synapses in way.by_post.items():
                    if abs(v[post] - self.theta[p][post]) < rule.width:
                        for pre, key in synapses:
                            x = trace(way.pre_spikes.get(pre, []), t, rule.tau_pre_us)
                            changed = way.weights[key] - rule.rate * error[post] * x
                            way.weights[key] = min(max(changed, rule.w_min), rule.w_max)

    # -- what comes round ----------------------------------------------------------------------------------------------

    def rates(self, p, rule, before, t):
        """Return running rates, Hz, of all units at the end of a period, from those at its begin."""
        kept = math.exp(-rule.period_us / rule.tau_rate_us)
        found, after_us = [], t - rule.period_us
        after_us -= after_us == self.begin_us  # the first period has both its ends
        for unit, rate in enumerate(before):
            n = sum(1 for s, q, j in self.spikes if q == p and j == unit and after_us < s <= t)
            found.append(rate * kept + (1 - kept) * n / (rule.period_us * 1e-6))
        return found

    def add_homeostasis(self, p, rule):
        rates = [0.0] * len(self.v[p])

        def come(t):
            rates[:] = self.rates(p, rule, rates, t)
            for unit, rate in enumerate(rates):
                moved = self.theta[p][unit] + rule.gain * (rate - rule.target_hz)
                self.theta[p][unit] = min(max(moved, rule.least), rule.most)

        self.cycles.append([0, rule.period_us, come])

    def add_scaling(self, way, rule, n_channels):
        """``n_channels``: 0 if weights are not shared by sites."""
        rates = [0.0] * len(self.v[way.target])

        def come(t):
            rates[:] = self.rates(way.target, rule, rates, t)
            seen = set()
            for post, synapses in way.by_post.items():
                mine = [rates[post]] if not n_channels else rates[post % n_channels :: n_channels]
                factor = max(1 + rule.gain * (rule.target_hz - sum(mine) / len(mine)) / rule.target_hz, 0.0)
                for _, key in synapses:
                    if key not in seen:  # a shared weight once
                        low, high = max(rule.w_min, way.rule.w_min), min(rule.w_max, way.rule.w_max)
                        way.weights[key] = min(max(way.weights[key] * factor, low), high)
                        seen.add(key)

        self.cycles.append([0, rule.period_us, come])

    def add_decolle(self, p, rule, readout, target):
        def come(t):
            mine = [[s for s, q, j in self.spikes if q == p and j == unit] for unit in range(len(self.v[p]))]
            s = [trace(times, t, rule.tau_readout_us) for times in mine]
            errors = [sum(g * x for g, x in zip(row, s, strict=True)) - (c == target) for c, row in enumerate(readout)]
            self.signal(p, [sum(row[j] * e for row, e in zip(readout, errors, strict=True)) for j in range(len(s))], t)

        self.cycles.append([0, rule.period_us, come])
