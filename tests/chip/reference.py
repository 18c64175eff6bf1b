"""A slow chip in plain Python integers, written from the specification; it imports nothing of ``chip``.

Everything is looked up from what a test describes (dictionaries), one neuron, one term, one link at a time. No
skipping of idle cores, no closed forms for silence, no fast paths.
"""

import math

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
        """Return spikes and the values asked for, whole."""
        p = self.p
        fired, values = [], []
        for j in range(self.n):
            self.r = register(self.r)
            m = random_mask(self.r, p["mask"], self.width)
            threshold = p["v_threshold"] + self.theta[j] + m
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
            low_byte = m % 256
            values.append(
                {0: before_reset, 1: v, 2: before_reset, 3: v, 4: None, 6: m, 7: low_byte - 256 * (low_byte > 127)}[
                    p["fire_type"]
                ]
            )
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


def digits(value, payload):
    """Write a value to the base 2^payload with digits from -base/2 to base/2 - 1; the lowest first."""
    base, found = 2**payload, []
    while value:
        digit = value % base
        if digit >= base // 2:
            digit -= base
        found.append(digit)
        value = (value - digit) // base
    return found


def values_range(bits, kind):
    if kind == "ternary":
        return -1, 1
    if kind == "unsigned":
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


class Chip:
    """Cores as dictionaries.

    axon_values, adds, n_axons, n_neurons, weight, bias, soma, table, bits, kind, place, and forward, None or (keeps,
    dx, dy); ``routes`` of a core: (neuron, dx, dy, axon, port, steps), port one of core, out, flagged, x, y.
    ``inputs``: (unit, core, axon).
    """

    def __init__(
        self, cores, inputs, n_outputs, *, width, payload, macs, overhead, phase_clocks, x_first=True, chip=(12, 13)
    ):
        self.cores, self.inputs, self.width = cores, inputs, width
        self.payload, self.macs, self.overhead, self.phase_clocks = payload, macs, overhead, phase_clocks
        self.x_first, self.chip = x_first, chip
        self.at = {core["place"]: number for number, core in enumerate(cores)}
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

    def follow(self, place, dx, dy, port, steps):
        """Return the ways that a packet and its copies take, and the cores that keep one."""
        here = (place[0] + dx, place[1] + dy)
        ways, kept = [path(place, here, self.x_first)], []
        if port in ("x", "y"):
            kept.append(self.at[here])
            for _ in range(abs(steps)):
                unit = 1 if steps > 0 else -1
                beyond = (here[0] + unit, here[1]) if port == "x" else (here[0], here[1] + unit)
                ways.append(path(here, beyond, self.x_first))
                here = beyond
                kept.append(self.at[here])
            return ways, kept
        while port == "flagged" and self.cores[self.at[here]]["forward"] is not None:
            keeps, fx, fy = self.cores[self.at[here]]["forward"]
            if keeps:
                kept.append(self.at[here])
            beyond = (here[0] + fx, here[1] + fy)
            ways.append(path(here, beyond, self.x_first))
            here = beyond
        return ways, [*kept, self.at[here]]

    def packets(self, core, lines, values):
        """Count the packets in which the values of one destination's lines travel."""
        bits = core["bits"]
        if bits > self.payload:
            return sum(sum(digit != 0 for digit in digits(values[line[0]], self.payload)) for line in lines)
        together, n_packets = self.payload // bits, 0
        diagonals = {}
        for neuron, _, _, axon, _, _ in lines:
            diagonals.setdefault(neuron - axon, []).append(neuron)
        for neurons in diagonals.values():
            begun = None
            packet = []
            for neuron in [*sorted(neurons), None]:
                if begun is None or neuron != begun + 1 or len(packet) == together:
                    n_packets += any(packet)
                    packet = []
                    # a new stretch begins its packets anew; a full packet is followed by the next
                if neuron is not None:
                    packet.append(values[neuron])
                begun = neuron
        return n_packets

    def phase(self, units, given=()):
        """Run one phase. Returns its counts, spikes and loads.

        ``units``: input lines that fired in it, with repeats; ``given``: (line, value) put there before.
        """
        count = dict.fromkeys(
            (
                "spikes_in", "merged", "spikes_out", "packets", "copies", "hops", "crossings", "synaptic_ops", "zeros",
                "overflows",
            ),
            0,
        )  # fmt: skip
        links = {}

        def send(ways, n):
            count["packets"] += n * len(ways)
            count["copies"] += n * (len(ways) - 1)
            for way in ways:
                for start, end in way:
                    links[start, end] = links.get((start, end), 0) + n
                    count["hops"] += n
                    if start is not None and end is not None:
                        on = [(x // self.chip[0], y // self.chip[1]) for x, y in (start, end)]
                        count["crossings"] += n * (on[0] != on[1])

        arrivals = [*given, *((unit, 1) for unit in units)]
        waiting = {}
        for unit, value in arrivals:
            waiting[unit] = waiting.get(unit, 0) + value
        count["merged"] += len(arrivals) - len(waiting)
        for unit, value in waiting.items():
            for line, core, axon in self.inputs:
                if line != unit:
                    continue
                n = 1
                if self.cores[core]["axon_values"]:
                    if value == 0:
                        continue
                    n = sum(digit != 0 for digit in digits(value, self.payload))
                count["spikes_in"] += 1
                send([[(None, (0, 0)), *path((0, 0), self.cores[core]["place"], self.x_first)]], n)
                self.put(self.axons, self.arrived, core, axon, value, count)
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
            kind_of_output, shift = core["soma"]["fire_type"], core["soma"]["cut_shift"]
            fired = [0] * n
            if kind_of_output == 8:
                half = len(core["table"]) // 2
                # a list's index from the end is the two's complement that the chip means
                values = [core["table"][clip(u // 2**shift, -half, half - 1)] for u in current]
            else:
                soma = self.somas[c]
                soma.overflows = 0
                fired, values = soma.step(current)
                count["overflows"] += soma.overflows
            spiking = kind_of_output == 4
            if spiking:
                count["spikes_out"] += sum(fired)
                spikes += [(c, j) for j in range(n) if fired[j]]
            else:
                low, high = values_range(core["bits"], core["kind"])
                if kind_of_output in (2, 3):
                    values = [v // 2**shift for v in values]
                else:
                    count["overflows"] += sum(not low <= v <= high for v in values)
                values = [clip(v, low, high) for v in values]
            destinations = dict.fromkeys(tuple(line[k] for k in (1, 2, 4, 5)) for line in core["routes"])
            for way in destinations:
                lines = [line for line in core["routes"] if tuple(line[k] for k in (1, 2, 4, 5)) == way]
                dx, dy, port, steps = way
                if port == "out":
                    ways, targets = [[*path(core["place"], (0, 0), self.x_first), ((0, 0), None)]], []
                else:
                    ways, targets = self.follow(core["place"], dx, dy, port, steps)
                send(ways, sum(fired[line[0]] for line in lines) if spiking else self.packets(core, lines, values))
                for neuron, _, _, axon, _, _ in lines:
                    value = fired[neuron] if spiking else values[neuron]
                    if value == 0:
                        if not spiking and self.arrived[c]:
                            count["zeros"] += 1
                        continue
                    if port == "out":
                        self.output[axon] = value
                    for target in targets:
                        self.put(later, later_arrived, target, axon, value, count)
        self.axons, self.arrived = later, later_arrived
        self.score = [s + o for s, o in zip(self.score, self.output, strict=True)]
        count["busiest_link"] = max(links.values(), default=0)
        count["clocks"] = max(clocks, count["busiest_link"])
        count["overruns"] = int(count["clocks"] > self.phase_clocks > 0)
        return count, spikes, {ends: n for ends, n in links.items() if n}


ONE = 65536


def left(n, tau_us, phase_us):
    """Return what n phases leave of ONE, a factor for each bit of n."""
    kept = ONE
    for b in range(n.bit_length()):
        if b >= 32:
            return 0
        if n >> b & 1:
            kept = kept * round(ONE * math.exp(-(2**b) * phase_us / tau_us)) // ONE
    return kept


class Host:
    """What stands beside a chip that learns: terminals of the input lines, and the fast change of one layer.

    ``terminals``: None, or for each line (depletion, tau_rec_us, f_rest, f_step, tau_fac_us). ``rule``: None, or a
    dictionary of local_rate, sliding, mixing, tau_us, most, scale. ``rows``: for each line, (core, axon, units) where a
    piece of its row stands. ``membranes``: for each unit, (core, neuron). ``late``: phases until a membrane moves.
    """

    def __init__(self, chip, n_lines, phase_us, terminals, rule, rows, membranes, late, bits):
        self.chip, self.phase_us, self.terminals, self.rule = chip, phase_us, terminals, rule
        self.rows, self.membranes, self.late = rows, membranes, late
        self.bits = bits if terminals is not None else 0
        self.now = 0
        self.r = [ONE] * n_lines
        self.f = [round(ONE * terminals[i][2]) for i in range(n_lines)] if terminals else []
        self.last = [0] * n_lines
        self.h = [[0] * len(membranes) for _ in range(n_lines)] if rule else []
        self.h_of = [0] * n_lines
        self.seen = {}
        self.count = dict.fromkeys(("weak", "rows_written", "bytes_written", "bytes_read", "updates"), 0)
        if rule:
            soma = chip.cores[membranes[0][0]]["soma"]
            self.threshold = soma["v_threshold"]
            self.shift = 0
            while 127 * 2**self.shift < 4 * self.threshold:
                self.shift += 1
            self.per_unit = 256 * rule["mixing"] * rule["scale"]
            self.most = round(min(abs(self.per_unit) * rule["most"], 127 * 256))

    def release(self, i):
        depletion, tau_rec, f_rest, f_step, tau_fac = self.terminals[i]
        depletion, f_rest, f_step = (round(ONE * x) for x in (depletion, f_rest, f_step))
        n = self.now - self.last[i]
        r = ONE - (ONE - self.r[i]) * left(n, tau_rec, self.phase_us) // ONE
        f = f_rest + (self.f[i] - f_rest) * left(n, tau_fac, self.phase_us) // ONE
        self.r[i] = r - r * depletion // ONE
        self.f[i] = f + (ONE - f) * f_step // ONE
        self.last[i] = self.now
        return r * f // ONE

    def write(self, i):
        kept = left(self.now - self.h_of[i], self.rule["tau_us"], self.phase_us)
        self.h[i] = [(h * kept + ONE // 2) // ONE for h in self.h[i]]
        self.h_of[i] = self.now
        for core, axon, units in self.rows[i]:
            row = [clip((self.h[i][j] + 128) // 256, -127, 127) for j in units]
            if row != self.chip.cores[core]["weight"][axon]:
                self.chip.cores[core]["weight"][axon] = row
                self.count["rows_written"] += 1
                self.count["bytes_written"] += len(row)

    def learn(self, active, fired):
        p, step = self.rule, 2.0**self.shift / self.threshold
        z = []
        for j, (core, neuron) in enumerate(self.membranes):
            u = self.chip.somas[core].v[neuron] + self.threshold * ((core, neuron) in fired)
            at = clip(u // 2**self.shift - round(p["sliding"][j] / step), -128, 127)
            z.append(round(32767 * math.tanh((at + 0.5) * step)))
        down = 23 + self.bits
        for i, a in active:
            rate = round(256 * self.per_unit * p["local_rate"][i])
            self.h[i] = [
                clip(h + (a * rate * z[j] + 2 ** (down - 1)) // 2**down, -self.most, self.most)
                for j, h in enumerate(self.h[i])
            ]
        self.count["bytes_read"] += 4 * len(z)
        self.count["updates"] += len(active) * len(z)

    def phase(self, units):
        """Run one phase on the events of input lines, in their order."""
        amounts = {}
        for i in units:
            amounts[i] = amounts.get(i, 0) + (self.release(i) if self.terminals else 0)
        active = []
        for i, amount in amounts.items():
            a = min((amount + 2 ** (15 - self.bits)) // 2 ** (16 - self.bits), 127) if self.terminals else 1
            if a == 0:
                self.count["weak"] += 1
                continue
            if self.rule:
                self.write(i)
            active.append((i, a))
        self.seen[self.now] = active
        count, spikes, links = self.chip.phase([], active)
        count["merged"] += len(units) - len(amounts)
        if self.rule and self.seen.get(self.now - self.late):
            self.learn(self.seen.pop(self.now - self.late), set(spikes))
        self.now += 1
        return count, spikes, links
