"""The performance harness, ``python -m perf``; ``docs/performance.md`` tells each scenario, and its aims.

    __main__.py   the command line          append.py     add: bursts, pauses, fresh users
    options.py    what a run is asked for   ingest.py     texts a second, by plain encoding; texts, tasks, disk a page
    result.py     figures, aims, the table  startup.py    importing, and the first add of a process
    timing.py     percentiles, a clock      retrieve.py   what a search takes beside encoding the question
    machine.py    what it was measured on   recover.py    reopening after SIGKILL; memory for a page
    texts.py      pages to measure with     owner.py, raw.py, children.py   processes that are measured or killed
    searching.py  searches, and the bare way of a     scale.py     a million pages of ten thousand users
                  question to the embedder and back   large.py     100,000 pages of one user; recall of the search
    recall.py     the evidence found                  busy.py      what others feel beside a bulk load
    tune.py       choosing the ranking's weights      questions.py LoCoMo's and BEAM's conversations and questions
    torture.py    kills at random moments, load.py    soak.py      is it flat? memory, descriptors, blocks, bytes
    adds.py, cliff.py   each add in order             beside.py, peer*.py   the same work by other libraries
    memory.py     is it flat over a million pages?    growth.py, readers.py   curves by size, by readers
    document.py   the four scenarios                  llm.py, endpoint.py   calls, by an endpoint that counts
    variants.py   ways of embedding, their aims       compare.py   two results; backends.py   rates of backends
    telling.py    the table and the JSON of a run     report.py, page.py, drawing.py   a page of results, with plots
    watching.py, timeline.py     looking again and again while something goes on
    profile.py    where each microsecond of a page goes: sampling.py, kinds.py (by stacks), usage.py (by the kernel)
    pipelines.py, processes.py   looking into a pipeline, and at processes from outside

Every figure has a median and a 99th percentile; what is compared is compared within one run, turn by turn. The table
names each figure's aim and whether it is met; with a question mark where other processes had a share of the machine,
since texts a second, and their ratios, then tell more about those than about the pipeline.
"""
