"""What several tests need: fakes of the outside world, whole services, and the checks of the house."""
