"""A conformance suite: closed-form and hard numerical cases for any implementation of these measures.

    python -m lazyrich.conformance --implementation package.module

runs it with pytest (``lazyrich[conformance]``) on the functions that the module has; those it lacks are skipped by name. By
default it runs on this library. Several modules may be named with commas between; a name is looked up in each in turn.
All arguments are pytest's: ``-k offset`` runs some, ``--tb=short`` shows less.

An implementation is a module with any of these. Tensors come on the CPU; a result is anything that ``float`` takes.

=================================================  ============================================================================
``low_rank_measure(features, outputs)``            D_LR, (n, p) and (n, C)
``kernel_alignment(a, b)``                         linear CKA of the samples as they are (plug-in, HSIC₀)
``debiased_kernel_alignment(a, b)``                linear CKA from the unbiased HSIC₁ (Song et al. 2012; Nguyen et al. 2021)
``effective_rank(features)``                       exp of the entropy of the eigenvalues of the centred covariance
``participation_ratio(features)``                  (Σλ)²/Σλ² of the same
``stable_rank(features)``                          ‖Φ‖_F²/‖Φ‖₂² of the raw matrix
``rankme(features)``                               exp of the entropy of the raw singular values (Garrido et al. 2023)
``alpha_req(features, fit_range=(first, last))``   exponent of λ_i over ranks first … last, from 1; ``fit_range`` may be left out
``neural_collapse(features, labels, …)``           attributes or entries ``nc1``, ``nc2_equinorm``, ``nc2_equiangular``, ``nc3``,
                                                   ``nc4``; takes ``num_classes``, ``head_weight``, ``head_bias`` by name
``tangent_kernel(model, inputs)``                  (m·C, m·C), sample by sample
``LowRankMeasure()``, ``KernelAlignment()``        metrics: ``update(features, outputs)``, ``compute()``, ``reset()``
=================================================  ============================================================================

A case that has no answer (constant, NaN or infinite features) passes where the implementation raises, warns or returns
something that is not finite: anything but a plain number. All expected values are closed forms, stated at the test.
"""
