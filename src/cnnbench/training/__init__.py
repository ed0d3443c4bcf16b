"""One run: from a config to a result.

From a typed key to a batch on the device, in the order of the calls:

    cli/train         reads the `key=value` arguments
    config/compose    composes them with conf/ to a checked `Config`
    run               calls all that follows, makes the callbacks and Lightning's Trainer, writes the result
    validate          freezes the config: resolves every `auto`, has the data set split and decoded, runs the net once
    factories         builds data set, augmentation, net, optimizer and learning-rate schedule
    data/datamodule   splits and decodes the images, gives the Trainer a loader
    data/loader       cuts a batch, moves it to the device, augments, normalizes and mixes it
    classifier        computes the loss of the batch and takes the step
"""
