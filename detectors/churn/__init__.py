"""Who may leave: what is known of a customer, the examples that wait for their label, the models, their measure."""
