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

    def __init__(self, source, target, synapses, weights, rule=None, terminal=None, delay_us=0, chunk_of=None):
        self.source, self.target, self.delay_us = source, target, delay_us
        self.weights = dict(weights)
        self.rule, self.terminal = rule, terminal
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

    def __init__(self, sizes, taus, theta, ways):
        self.names = list(sizes)
        self.v = {p: [0.0] * n for p, n in sizes.items()}
        self.t = {p: [0] * n for p, n in sizes.items()}
        self.taus, self.theta, self.ways = taus, theta, ways
        self.heap, self.sequence = [], itertools.count()
        self.spikes = []

    def run(self, items, until_us):
        for t, unit in items:
            self.happen(t)
            for way in self.ways:
                if way.source == "input" and way.delay_us:
                    heapq.heappush(self.heap, (t + way.delay_us, next(self.sequence), way, unit))
            self.cascade(t, {"input": [unit]}, None)
        self.happen(until_us)

    def happen(self, until_us):
        while self.heap and self.heap[0][0] <= until_us:
            t, _, way, unit = heapq.heappop(self.heap)
            self.cascade(t, {}, (way, unit))

    def cascade(self, t, fired, arriving):
        for p in self.names:
            mine = fired.setdefault(p, [])
            if arriving and arriving[0].target == p:
                mine += self.deliver(arriving[0], arriving[1], t)
            for way in self.ways:
                if way.target == p and not way.delay_us:
                    for unit in list(fired.get(way.source, [])):
                        mine += self.deliver(way, unit, t)

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

    def deliver(self, way, pre, t):
        p, rule, v = way.target, way.rule, self.v[way.target]
        amplitude = self.amplitude(way, pre, t)
        name = type(rule).__name__
        x_2 = trace(way.pre_spikes.get(pre, []), t, rule.tau_x_us) if name == "TripletSTDP" else 0.0
        fired = []
        for _, group in itertools.groupby(way.by_pre.get(pre, []), key=lambda it: way.chunk_of(it[0])):
            chunk = list(group)
            for post, key in chunk:
                v[post] *= math.exp(-(t - self.t[p][post]) / self.taus[p])
                self.t[p][post] = t
                w = way.weights[key]
                if name == "Hebbian":
                    hebb = self.faded(way, key, t, rule.tau_hebb_us)
                    if rule.mixed == "add":
                        w = w + rule.mixing * hebb
                    elif rule.mixed == "blend":
                        w = rule.mixing[key] * w + (1 - rule.mixing[key]) * hebb
                    else:
                        w = rule.mask[key] * w + rule.mixing * (1 - rule.mask[key]) * hebb
                v[post] += amplitude * w
            ys = [v[post] / self.theta[p] - getattr(rule, "sliding_threshold", 0.0) for post, _ in chunk]
            total = sum(math.exp(min(y, 300)) for y in ys)
            for (post, key), y in zip(chunk, ys, strict=True):
                self.pre_change(way, rule, name, pre, post, key, t, x_2, y, total, amplitude)
            for post, _ in chunk:
                if v[post] > self.theta[p]:
                    v[post] -= self.theta[p]
                    fired.append(post)
                    self.spikes.append((t, p, post))
        way.pre_spikes.setdefault(pre, []).append(t)
        for post in fired:
            for other in self.ways:
                if other.target == p and other.rule is not None:
                    self.post_change(other, post, t)
            for other in self.ways:
                if other.source == p and other.delay_us:
                    heapq.heappush(self.heap, (t + other.delay_us, next(self.sequence), other, post))
        return fired

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
        elif name == "Hebbian":
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
            if way.target == p and type(way.rule).__name__ == "ErrorModulated":
                rule = way.rule
                v = [v * math.exp(-(t - s) / self.taus[p]) for v, s in zip(self.v[p], self.t[p], strict=True)]
                for post, synapses in way.by_post.items():
                    if abs(v[post] - self.theta[p]) < rule.width:
                        for pre, key in synapses:
                            x = trace(way.pre_spikes.get(pre, []), t, rule.tau_pre_us)
                            changed = way.weights[key] - rule.rate * error[post] * x
                            way.weights[key] = min(max(changed, rule.w_min), rule.w_max)
