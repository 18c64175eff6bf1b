"""A slow chip in plain Python integers, written from the specification; it imports nothing of ``chip``.

Everything is looked up from what a test describes (dictionaries), one neuron, one term, one link at a time. No
skipping of idle cores, no closed forms for silence, no fast paths.
"""

INT_LOW, INT_HIGH = -(2**31), 2**31 - 1


def clip(x, low, high):
    return low if x < low else high if x > high else x


def register(r):
    """Shift a 32-bit register once, written on a list of bits."""
    bits = [(r >> k) & 1 for k in range(32)]
    new = (bits[0] + bits[1] + bits[2] + bits[3] + bits[5] + bits[7]) % 2
    bits = [*bits[1:], new]
    return sum(bit << k for k, bit in enumerate(bits))


def random_mask(r, mask, width):
    """Return the random part of the threshold."""
    signed = r - 2**32 if r >= 2**31 else r
    m = signed & mask if signed >= 0 else -((~signed) & mask)
    m %= 2**width
    return m - 2**width if m >= 2 ** (width - 1) else m


class Neurons:
    """The soma of one core. ``p`` is a dictionary of its settings."""

    def __init__(self, p, n, width):
        self.p, self.n, self.width = p, n, width
        self.v = [p["v_init"]] * n
        self.theta = [0] * n
        self.rest = [0] * n
        self.r = p["seed"]
        self.window = 0
        self.overflows = 0

    def bounded(self, x):
        low, high = -(2 ** (self.width - 1)), 2 ** (self.width - 1) - 1
        if not low <= x <= high:
            self.overflows += 1
        return clip(x, low, high)

    def step(self, current):
        """Return spikes and the values asked for."""
        p = self.p
        fired, values = [], []
        for j in range(self.n):
            self.r = register(self.r)
            threshold = p["v_threshold"] + self.theta[j] + random_mask(self.r, p["mask"], self.width)
            if threshold < p["floor"]:
                threshold = p["floor"]
            v = self.v[j]
            if self.rest[j] == 0:
                v = v + current[j]
            v = self.bounded(v)
            before_reset = v
            spike = v > threshold
            if spike and p["reset_mode"] == 0:
                v = p["v_reset"]
            if spike and p["reset_mode"] == 1:
                v = v - threshold
            if spike and p["reset_mode"] == 2:
                v = v - p["v_decrement"]
            if self.window >= p["window_length"]:
                v = p["v_init"]
            elif p["leak_mode"] == 1:
                v = (v * p["alpha"]) // 256 + p["beta"]
            else:
                v = v + p["beta"]
            v = self.bounded(v)
            if v < p["floor"]:
                v = p["floor"]
            self.v[j] = v
            theta = self.theta[j]
            theta = (theta * p["theta_alpha"]) // 256 if p["theta_mode"] == 1 else theta
            theta += p["theta_beta"]
            if spike:
                theta += p["theta_increment"]
            self.theta[j] = clip(theta, -(2 ** (self.width - 1)), 2 ** (self.width - 1) - 1)
            if spike:
                self.rest[j] = p["refractory_phases"]
            elif self.rest[j] > 0:
                self.rest[j] -= 1
            fired.append(int(spike))
            values.append(before_reset if p["fire_type"] == 0 else v)
        if p["window_enabled"]:
            self.window = 0 if self.window == p["window_length"] else (self.window + 1) % 256
        return fired, values


def path(start, end, x_first=True):
    """List the links from place to place, each as (from, to)."""
    (x, y), links = start, []

    def along_x():
        nonlocal x
        while x != end[0]:
            step = 1 if x < end[0] else -1
            links.append(((x, y), (x + step, y)))
            x += step

    def along_y():
        nonlocal y
        while y != end[1]:
            step = 1 if y < end[1] else -1
            links.append(((x, y), (x, y + step)))
            y += step

    for move in (along_x, along_y) if x_first else (along_y, along_x):
        move()
    return links


class Chip:
    """Cores as dictionaries: axon_values, adds, n_axons, n_neurons, weight, bias, soma, routes, value_bits, place.

    ``routes`` of a core: (neuron, target core or None, axon or output line). ``inputs``: (unit, core, axon).
    """

    def __init__(self, cores, inputs, n_outputs, width, payload, macs, overhead, phase_clocks, x_first=True):
        self.cores, self.inputs, self.width = cores, inputs, width
        self.payload, self.macs, self.overhead, self.phase_clocks = payload, macs, overhead, phase_clocks
        self.x_first = x_first
        self.somas = [Neurons(core["soma"], core["n_neurons"], width) for core in cores]
        self.axons = [[0] * core["n_axons"] for core in cores]
        self.arrived = [0] * len(cores)
        self.score = [0] * n_outputs
        self.output = [0] * n_outputs

    def put(self, axons, arrived, core, axon, value, count):
        if not self.cores[core]["axon_values"]:
            if axons[core][axon]:
                count["merged"] += 1
            else:
                axons[core][axon] = 1
                arrived[core] += 1
            return
        total = axons[core][axon] + value
        if not INT_LOW <= total <= INT_HIGH:
            count["overflows"] += 1
        axons[core][axon] = clip(total, INT_LOW, INT_HIGH)
        arrived[core] += 1

    def phase(self, units):
        """Run one phase on the input lines that fired in it (with repeats). Returns its counts and spikes."""
        count = dict.fromkeys(
            ("spikes_in", "merged", "spikes_out", "packets", "hops", "synaptic_ops", "zeros", "overflows"), 0
        )
        links = {}

        def send(way, n):
            count["packets"] += n
            for link in way:
                links[link] = links.get(link, 0) + n
                count["hops"] += n

        count["merged"] += len(units) - len(set(units))
        for unit in dict.fromkeys(units):
            for line, core, axon in self.inputs:
                if line == unit:
                    count["spikes_in"] += 1
                    send(["in", *path((0, 0), self.cores[core]["place"], self.x_first)], 1)
                    self.put(self.axons, self.arrived, core, axon, 1, count)
        later = [[0] * core["n_axons"] for core in self.cores]
        later_arrived = [0] * len(self.cores)
        self.output = [0] * len(self.output)
        spikes, clocks = [], 0
        for c, core in enumerate(self.cores):
            n = core["n_neurons"]
            current = list(core["bias"])
            macs = 0

            def add(j, term, current=current):
                total = current[j] + term
                if not INT_LOW <= total <= INT_HIGH:
                    count["overflows"] += 1
                current[j] = clip(total, INT_LOW, INT_HIGH)

            if core["adds"]:
                for j in range(n):
                    add(j, self.axons[c][j])
                macs = self.arrived[c]
                count["synaptic_ops"] += macs
            else:
                for i, a in enumerate(self.axons[c]):
                    if a == 0:
                        continue
                    for j in range(n):
                        add(j, a * core["weight"][i][j])
                        macs += 1
                        if core["weight"][i][j] == 0:
                            count["zeros"] += 1
                        else:
                            count["synaptic_ops"] += 1
            if self.arrived[c]:
                clocks = max(clocks, -(-macs // self.macs) + self.overhead)
            soma = self.somas[c]
            soma.overflows = 0
            fired, values = soma.step(current)
            count["overflows"] += soma.overflows
            spiking = core["soma"]["fire_type"] == 4
            if spiking:
                count["spikes_out"] += sum(fired)
                spikes += [(c, j) for j in range(n) if fired[j]]
            for neuron, target, axon in core["routes"]:
                value = fired[neuron] if spiking else values[neuron]
                if value == 0:
                    if not spiking and self.arrived[c]:
                        count["zeros"] += 1
                    continue
                n_packets = 1
                if not spiking:
                    half = 2 ** (core["value_bits"] - 1)
                    value = clip(value, -half, half - 1)
                    n_packets = -(-core["value_bits"] // self.payload)
                if target is None:
                    send([*path(core["place"], (0, 0), self.x_first), "out"], n_packets)
                    self.output[axon] = value
                else:
                    send(path(core["place"], self.cores[target]["place"], self.x_first), n_packets)
                    self.put(later, later_arrived, target, axon, value, count)
            if not spiking:
                half = 2 ** (core["value_bits"] - 1)
                count["overflows"] += sum(not -half <= value < half for value in values)
        self.axons, self.arrived = later, later_arrived
        self.score = [s + o for s, o in zip(self.score, self.output, strict=True)]
        count["busiest_link"] = max(links.values(), default=0)
        count["clocks"] = max(clocks, count["busiest_link"])
        count["overruns"] = int(count["clocks"] > self.phase_clocks)
        return count, spikes
