from benchmarks.gpu.bench import main

if __name__ == "__main__":
    main()
