"""The training step: slots, programs, gradients, one update; and scoring with the same programs."""
