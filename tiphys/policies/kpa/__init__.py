"""Knative's autoscalers: their numbers, their manifests, and the arithmetic of the KPA as pure functions.

What a twin calls (`loop`, `rules`, `target`), and when:

* `kpa_rules(policy, settings)` makes the numbers, `new_kpa_state(rules, replicas, ready_pods, now_s)` the memory: fixed
  arrays, nothing is allocated later. All times are seconds of one clock that does not run before 0.
* `kpa_record(rules, state, now_s, concurrency, rps)` once a second (`settings.knative.scrape_s`) for each source that
  reports:

  - the pods, while one is ready and `rules.is_scraped`: `sampled_pods(n)` of the `n` ready ones are asked, older ones
    first; the mean of their concurrencies over the past second times `n`, 0 if they are idle, without what came
    through an activator, and likewise their requests of that second. What waits in queue-proxy for
    `container_concurrency` counts as concurrency;
  - the activators, for the requests that went through them, waiting ones included; none where they had none in that
    second.

  With an unlimited target burst capacity everything goes through the activators and pods are not asked.
* `kpa_tick(rules, state, now_s, ready_pods, reachable, replicas)` every `settings.knative.tick_s`: the decision, and
  what the reconciler makes of it, as a `KpaOutcome`. Write `outcome.replicas` unless it is -1; route by
  `outcome.is_proxied`.
* A request that reaches the activators while they know of no other: they report a concurrency of 1 and one request at
  once (`kpa_record`, and that much less, but not under 0, in their next report), and if `kpa_is_idle(state)` then
  `kpa_tick` follows in the same instant.
* `kpa_look(...)`, with the arguments of a tick, where the reconciler looks without a decision: `outcome.look_again_s`
  later, and when the number of ready pods changes. Without these calls the next tick does the same, up to 2 s late.

The codes in an outcome stand for the words in `decider.MODES`, `decider.LIMITS`, `reconciler.REASONS`,
`reconciler.CONDITIONS` and `reconciler.CONDITION_REASONS`.

The class hpa has its own kind, `knative-hpa`: `rules.generated_hpa(policy, settings)` is the HPA that Knative makes,
and `tiphys.policies.hpa` its arithmetic.
"""
