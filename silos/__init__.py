"""One organisation's node: configuration, data, policy, consent, links, worker and command line."""
