"""The toy training as a config, on the project's common parts."""

from detectron2.config import LazyCall as L

from toy_training import ToyEvaluator, ToyModel, ToyTestLoader, build_toy_loader

from ...configs.common.optim import SGD as optimizer
from ...configs.common.schedule import step_schedule
from ...configs.common.train import train

model = L(ToyModel)(channels=4, dropout=0.2)
dataloader = dict(  # noqa: C408
    train=L(build_toy_loader)(total_batch_size=4, seed="${...train.seed}"),
    test=L(ToyTestLoader)(),
    evaluator=L(ToyEvaluator)(output_dir="${...train.output_dir}/inference"),
)
lr_multiplier = step_schedule(max_iter=6, drops=(5,), warmup_iters=2)
optimizer.lr = 0.05
train.update(max_iter=6, seed=7, device="cpu", eval_period=2, log_period=1)
train["checkpointer"]["period"] = 3
