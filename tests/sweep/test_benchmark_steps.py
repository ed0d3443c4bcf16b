"""A few steps of a job, timed before it runs."""

from cnnbench.config.compose import compose
from cnnbench.sweep.benchmark_steps import STEPS, measure
from small_nets import TINY


class Played:
    """Stands for a recorded step, which needs a GPU: makes the gradients, from the fourth batch on."""

    made = None

    def __init__(self, step, net, size):
        self.step, self.net, self.size, self.calls = step, net, size, 0
        Played.made = self

    def __call__(self, images, labels):
        self.calls += 1
        if self.calls <= 3:
            return None
        self.net.zero_grad()
        loss = self.step(images, labels)
        loss.backward()
        return loss.detach()


def test_a_measured_step_is_a_replayed_one_where_the_runs_will_be(monkeypatch):
    monkeypatch.setattr("cnnbench.sweep.benchmark_steps.suits_cuda_graph", lambda config: True)
    monkeypatch.setattr("cnnbench.sweep.benchmark_steps.Replay", Played)
    estimate = measure(compose([*TINY, "trainer=cpu", "model=lenet5", "batch_size=16"]))
    assert (Played.made.size, Played.made.calls) == (16, STEPS)
    assert all(parameter.grad is not None for parameter in Played.made.net.parameters())
    assert estimate.seconds > 0
