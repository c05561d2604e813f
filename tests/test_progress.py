"""Progress of jobs whose end is not known."""

from seit.progress import Pulse


def test_a_pulse_speaks_every_few_seconds():
    now = [0.0]
    lines = []
    pulse = Pulse(lines.append, "{:,} so far", seconds=10.0, clock=lambda: now[0])
    for seconds, count in ((4, 1), (9, 2), (10, 3000), (15, 4000), (31, 5000)):
        now[0] = seconds
        pulse.beat(count)
    assert lines == ["3,000 so far", "5,000 so far"]
    pulse = Pulse(lines.append, "{} so far", seconds=0.0, clock=lambda: now[0])
    lines.clear()
    assert list(pulse.each(["a", "bc"], per=len)) == ["a", "bc"]
    assert lines == ["1 so far", "3 so far"]
