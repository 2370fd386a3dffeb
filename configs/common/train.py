"""Training options: all but model, data, optimizer and schedule. Features are off by default."""

train = dict(
    output_dir="output",
    # Initial weights of the model or its backbone: see docs/checkpoints.md.
    init_checkpoint="",
    max_iter=90_000,
    # Passes over the images of train_net.py's --data, which then sets max_iter and the periods.
    epochs=None,
    # Whether --data also chooses the image size and the anchors' scale, from the boxes.
    fit_data=False,
    # Batches per step, for fewer GPUs: divide total_batch_size by it.
    accumulate=1,
    # 0 or more: order, augmentation and initial weights are the same in every run. -1: random.
    seed=-1,
    device="auto",  # or "cpu", "cuda"
    # enabled: or "auto", with a GPU that has the dtype; dtype: or "bfloat16".
    amp=dict(enabled=False, dtype="float16"),
    # So many steps with losses that are not finite are skipped; the next one ends the training.
    skip_nonfinite=0,
    clip_grad=dict(enabled=False, type="norm", max=35.0),  # or "value"
    # With it the averaged weights are what is evaluated.
    ema=dict(enabled=False, decay=0.9998),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    # period: in iterations, or "auto", a tenth of the training.
    checkpointer=dict(period="auto", max_to_keep=None),
    # The newest state, model_latest.pth, is saved when so many minutes have passed; None: never.
    checkpoint_minutes=10,
    # E.g. "bbox/AP": keeps model_best.pth.
    best=dict(metric=None),
    # Ends the training after so many evaluations in a row without a better best.metric.
    early_stop=dict(patience=None),
    eval_period=5000,
    # Whether evaluations also compute the losses on the test images.
    eval_losses=False,
    # A frozen teacher is evaluated once, before the training.
    eval_teacher=True,
    log_period=20,
    # Further writers of metrics, as LazyCalls: docs/training.md.
    writers=[],
    # Iterations between pictures of the assignment in TensorBoard, see docs/inspect.md. 0: none.
    vis_period=0,
    # Further trainer hooks, as LazyCalls.
    hooks=[],
)
