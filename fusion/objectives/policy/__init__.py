"""Objectives on texts that the pivot wrote itself: each token it drew is made likelier or less likely, by an advantage.

rollouts         which rows those are, and what is known of them     ratio        how far the pivot has moved since it wrote
base             the step that all share                             signal       what a source says of a span of text
policy_gradient  advantages from sources                             group_reward, no_source  from rewards, and from neither
"""
