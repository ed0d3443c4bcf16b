"""The measurement of a few steps of a job before it runs."""

from cnnbench.config.compose import compose
from cnnbench.sweep.benchmark_steps import measure_job
from small_nets import TINY


class FakeGraphedStep:
    """Replaces GraphedStep, which needs a GPU; it computes the gradients from the fourth batch on."""

    made = None

    def __init__(self, step, net, size):
        self.step, self.net, self.size, self.calls = step, net, size, 0
        FakeGraphedStep.made = self

    def __call__(self, images, labels):
        self.calls += 1
        if self.calls <= 3:
            return None
        self.net.zero_grad()
        loss = self.step(images, labels)
        loss.backward()
        return loss.detach()


def test_steps_are_measured_with_a_cuda_graph_if_the_run_uses_one(monkeypatch):
    monkeypatch.setattr("cnnbench.sweep.benchmark_steps.can_use_cuda_graph", lambda config: True)
    monkeypatch.setattr("cnnbench.sweep.benchmark_steps.GraphedStep", FakeGraphedStep)
    seconds, peak_mb = measure_job(compose([*TINY, "trainer=cpu", "model=lenet5", "batch_size=16"]), step_count=12)
    assert (FakeGraphedStep.made.size, FakeGraphedStep.made.calls) == (16, 12)
    assert all(parameter.grad is not None for parameter in FakeGraphedStep.made.net.parameters())
    assert seconds > 0
    assert peak_mb > 0
