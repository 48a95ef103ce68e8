"""Post office and notary: enrolment, jobs, relay and the transparency log.  Never imports torch, numpy or mpc."""
