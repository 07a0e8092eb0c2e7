"""Images and videos on one fleet, on a virtual clock: steps, pauses, batches, degrees, several roles on a GPU."""
