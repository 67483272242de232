"""What the commands do beside training: apply, optimise, evaluate, draw figures, measure speed."""
