"""Data: random-access sources, deterministic batches on the host, augmentation on the device.

A batch takes this road:

    sources.load  ->  images.host_transform  ->  pipeline.TrainBatches  ->  augment.train_transform
    (uint8, any size)  (uint8, one size)          (uint8 [B, H, W, C])       (float32, on the device)
"""
