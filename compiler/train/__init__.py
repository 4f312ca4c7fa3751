"""Training: images in, a trained network out, resumable at any moment.

images   cache, images, augment, batches
settings   config, with losses, optimisers, schedules, average, compute
training   train, run (one step), keeper (checkpoints), log, checks, stopping, state
judging    evaluate
beside it  jobs: independent jobs over processes or Ray
"""
